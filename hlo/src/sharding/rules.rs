//! The table that maps logical axes to mesh axes.

use std::sync::Arc;

use super::{AxisError, AxisName, IndivisibleDim, Mesh, Sharding};

/// A mesh, and for each logical axis the mesh axes that split it (in Flax: logical axis rules).
#[derive(Clone, Debug)]
pub struct LogicalAxisRules {
    mesh: Arc<Mesh>,
    /// Mesh axes by index, major first.
    rules: Vec<(AxisName, Vec<usize>)>,
    form: ShardingForm,
}

/// How shardings are written into the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardingForm {
    /// By the names of mesh axes, for the Shardy partitioner.
    #[default]
    Shardy,
    /// As a grid of tiles over the devices in mesh order, for the GSPMD partitioner. Older plugins
    /// have no other.
    Gspmd,
}

impl LogicalAxisRules {
    /// Rules on `mesh`: each logical axis with its mesh axes, major first. Mesh axes of size 1
    /// split nothing.
    ///
    /// # Errors
    /// The first mesh axis that the mesh does not have.
    pub fn new<L: Into<AxisName>, M: Into<AxisName>>(
        mesh: Mesh,
        rules: impl IntoIterator<Item = (L, Vec<M>)>,
    ) -> Result<LogicalAxisRules, AxisError> {
        let rule = |(name, axes): (L, Vec<M>)| {
            let axes = axes.into_iter().map(|axis| mesh.axis(axis.into()));
            let axes = axes.collect::<Result<_, AxisError>>()?;
            Ok((name.into(), axes))
        };
        Ok(LogicalAxisRules {
            rules: rules
                .into_iter()
                .map(rule)
                .collect::<Result<_, AxisError>>()?,
            mesh: Arc::new(mesh),
            form: ShardingForm::default(),
        })
    }

    /// The same rules, written in another form.
    pub fn with_form(self, form: ShardingForm) -> LogicalAxisRules {
        LogicalAxisRules { form, ..self }
    }

    /// The mesh.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// The form its shardings are written in.
    pub fn form(&self) -> ShardingForm {
        self.form
    }

    /// The sharding of an array of `dims` whose dimensions are called `names`. Each dimension is
    /// split over the axes of its rule that no earlier dimension of the array has taken.
    ///
    /// # Errors
    /// The first name without a rule, or dimension that the axes of its rule do not divide.
    pub fn sharding(
        &self,
        names: &[impl Into<AxisName> + Copy],
        dims: &[i64],
    ) -> Result<Sharding, AxisError> {
        self.sharding_except(&[], &AxisName::all(names), dims)
    }

    /// The same for an array that is used together with one whose dimensions are called `taken`:
    /// the axes of those split nothing here.
    pub(crate) fn sharding_except(
        &self,
        taken: &[AxisName],
        names: &[AxisName],
        dims: &[i64],
    ) -> Result<Sharding, AxisError> {
        let mut used = vec![false; self.mesh.axes().len()];
        for &name in taken {
            for &axis in self.rule(name)? {
                used[axis] = true;
            }
        }
        let dims = names.iter().zip(dims).map(|(&name, &size)| {
            let mut shards = 1;
            let mut axes = Vec::new();
            for &index in self.rule(name)? {
                let (axis, axis_size) = self.mesh.axes()[index];
                if used[index] || axis_size == 1 {
                    continue;
                }
                shards *= axis_size;
                if size % shards != 0 {
                    return Err(AxisError::from(IndivisibleDim {
                        name: name.to_string(),
                        size,
                        axis,
                        axis_size,
                        shards,
                    }));
                }
                used[index] = true;
                axes.push(index);
            }
            Ok(axes)
        });
        Ok(Sharding {
            dims: dims.collect::<Result<_, _>>()?,
            mesh: self.mesh.clone(),
        })
    }

    fn rule(&self, name: AxisName) -> Result<&[usize], AxisError> {
        let rule = self.rules.iter().find(|rule| rule.0 == name);
        rule.map(|rule| &*rule.1)
            .ok_or_else(|| AxisError::UnknownLogicalAxis {
                axis: name,
                known: self.rules.iter().map(|rule| rule.0).collect(),
            })
    }
}
