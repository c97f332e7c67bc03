//! Whether the hosts of a run agree on where to begin. The devices tell them: a number from each is reduced over all.

use ankh_hlo::{ArraySpec, DType, Graph, Shape, Sharding};
use ankh_pjrt::HostTensor;

use super::{DeviceError, Fleet, Input};

impl Fleet {
    /// The least and the greatest of the numbers that the processes give; each of them has to ask. Numbers beyond 2^31 - 1 count
    /// as that.
    pub fn extremes(&self, own: u64) -> Result<(u64, u64), DeviceError> {
        self.extremes_of(|_| own)
    }

    /// The same with a number for each device of this process, by its place in the mesh.
    fn extremes_of(&self, own: impl Fn(usize) -> u64) -> Result<(u64, u64), DeviceError> {
        let g = Graph::new("extremes");
        let shape = Shape::new(DType::S32, [self.ids.len() as i64]);
        let numbers = match &self.layout {
            None => g.parameter("numbers", shape),
            Some(layout) => {
                g.set_logical_axis_rules(layout.clone());
                let names: Vec<&str> = layout.mesh().axes().iter().map(|a| &*a.0).collect();
                let sharding = Sharding::new(layout.mesh(), &[&names])
                    .expect("each axis of the mesh splits the numbers once");
                g.sharded_parameter("numbers", shape, sharding)
            }
        };
        let program = self.compile(&g.finish(&[numbers.min(&[0]), numbers.max(&[0])], &[])?)?;
        let spec: &ArraySpec = &program.parameters()[0];
        let numbers = self.assemble(spec, |position, _| {
            let number = i32::try_from(own(position)).unwrap_or(i32::MAX);
            Ok::<_, DeviceError>(HostTensor::from_i32([1], &[number]))
        })?;
        let results = program.start(vec![Input::Keep(&numbers)])?;
        let read = |i: usize| -> Result<u64, DeviceError> {
            let number = results[i].first().to_host()?.to_vec_i32()?[0];
            Ok(u64::try_from(number).unwrap_or(0))
        };
        Ok((read(0)?, read(1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve;
    use crate::fleet::Hosts;

    #[test]
    fn the_hosts_learn_the_extremes_of_their_numbers() {
        let set = ["sharding.model=2".to_owned(), "sharding.fsdp=2".to_owned()];
        let config = resolve(
            Some("tiny"),
            &[&set[..], &["train.batch_size=8".to_owned()]].concat(),
        );
        let slice = "cpu-8".parse().unwrap();
        let fleet = Fleet::open(slice, &config.unwrap(), Hosts::Real).unwrap();
        assert_eq!(fleet.extremes(5000).unwrap(), (5000, 5000));
        let numbers = [7, 3, 9, 4, 8, 8, 5, 6];
        assert_eq!(fleet.extremes_of(|i| numbers[i]).unwrap(), (3, 9));
        let alone = resolve(Some("tiny"), &[]).unwrap();
        let fleet = Fleet::open(Default::default(), &alone, Hosts::Real).unwrap();
        assert_eq!(
            fleet.extremes(u64::MAX).unwrap(),
            (i32::MAX as u64, i32::MAX as u64)
        );
    }
}
