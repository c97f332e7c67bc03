//! Reads back arrays of which other processes hold shards: a program first copies the whole array
//! to every device.

use ankh_hlo::{Graph, Sharding};

use super::{DeviceError, DeviceMesh, Input, ShardedArray};

impl DeviceMesh {
    /// The array, whole on every device. Each process has to do the same.
    pub(super) fn gather(&self, array: &ShardedArray) -> Result<ShardedArray, DeviceError> {
        let g = Graph::new("gather");
        if let Some(rules) = &self.rules {
            g.set_logical_axis_rules(rules.clone());
        }
        let spec = array.spec();
        let x = match &spec.sharding {
            Some(sharding) => g.sharded_parameter("array", spec.shape.clone(), sharding.clone()),
            None => g.parameter("array", spec.shape.clone()),
        };
        let whole = match &self.rules {
            Some(rules) => {
                x.with_sharding_constraint(Sharding::replicated(rules.mesh(), spec.shape.rank()))
            }
            None => x,
        };
        let program = self.compile(&g.finish(&[whole], &[])?)?;
        let mut outputs = program.execute(vec![Input::Keep(array)])?;
        Ok(outputs.swap_remove(0))
    }
}
