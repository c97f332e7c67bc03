//! Compares a number among the hosts of a run: its minimum and maximum are reduced over all
//! devices.

use std::borrow::Cow;

use ankh_hlo::{ArraySpec, AxisName, DType, Graph, Shape, Sharding};
use ankh_pjrt::HostTensor;

use super::{DeviceError, DeviceMesh, Input};

impl DeviceMesh {
    /// The minimum and maximum of a number of each process; every process has to call this.
    /// Numbers beyond 2^31 - 1 count as 2^31 - 1.
    pub fn all_reduce_min_max(&self, own: u64) -> Result<(u64, u64), DeviceError> {
        self.all_reduce_min_max_of(|_| own)
    }

    /// The same with a number for each device of this process, by its position in the mesh.
    fn all_reduce_min_max_of(&self, own: impl Fn(usize) -> u64) -> Result<(u64, u64), DeviceError> {
        let g = Graph::new("all_reduce_min_max");
        let shape = Shape::new(DType::S32, [self.ids.len() as i64]);
        let numbers = match &self.rules {
            None => g.parameter("numbers", shape),
            Some(rules) => {
                g.set_logical_axis_rules(rules.clone());
                let axes: Vec<AxisName> = rules.mesh().axes().iter().map(|a| a.0).collect();
                let sharding = Sharding::new(rules.mesh(), &[&axes])
                    .expect("each axis of the mesh splits the numbers once");
                g.sharded_parameter("numbers", shape, sharding)
            }
        };
        let program = self.compile(&g.finish(&[numbers.min(&[0]), numbers.max(&[0])], &[])?)?;
        let spec: &ArraySpec = &program.parameters()[0];
        let numbers = self.assemble(spec, |position, _| {
            let number = i32::try_from(own(position)).unwrap_or(i32::MAX);
            Ok::<_, DeviceError>(Cow::Owned(HostTensor::new::<i32>([1], &[number])))
        })?;
        let results = program.execute(vec![Input::Keep(&numbers)])?;
        let read = |i: usize| -> Result<u64, DeviceError> {
            let number = results[i].addressable_shards()[0]
                .to_host()?
                .to_vec::<i32>()?[0];
            Ok(u64::try_from(number).unwrap_or(0))
        };
        Ok((read(0)?, read(1)?))
    }
}

#[cfg(test)]
mod tests {
    use ankh_hlo::{LogicalAxisRules, Mesh};

    use super::*;
    use crate::mesh::{Hosts, MeshOptions};
    use crate::mesh_shape::MeshShape;

    #[test]
    fn the_hosts_learn_the_least_and_the_greatest_of_their_numbers() {
        let axes = ["data", "fsdp", "model"].map(|axis| (AxisName::new(axis), 2));
        let rules: [(AxisName, Vec<AxisName>); 0] = [];
        let options = MeshOptions {
            shape: MeshShape {
                data: 2,
                fsdp: 2,
                model: 2,
            },
            rules: Some(LogicalAxisRules::new(Mesh::new(axes).unwrap(), rules).unwrap()),
            flags: vec![],
            hosts: Hosts::Real,
        };
        let mesh = DeviceMesh::open("cpu-8".parse().unwrap(), options).unwrap();
        assert_eq!(mesh.all_reduce_min_max(5000).unwrap(), (5000, 5000));
        let numbers = [7, 3, 9, 4, 8, 8, 5, 6];
        let reduced = mesh.all_reduce_min_max_of(|i| numbers[i]);
        assert_eq!(reduced.unwrap(), (3, 9));
        let alone = DeviceMesh::open(Default::default(), MeshOptions::single_device()).unwrap();
        assert_eq!(
            alone.all_reduce_min_max(u64::MAX).unwrap(),
            (i32::MAX as u64, i32::MAX as u64)
        );
    }
}
