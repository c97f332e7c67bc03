//! Compile options: how many devices a program runs on, which they are, and how it is partitioned.

use ankh_proto::xla::device_assignment_proto::ComputationDevice;
use ankh_proto::xla::option_override_proto::Value;
use ankh_proto::xla::{
    CompileOptionsProto, DeviceAssignmentProto, ExecutableBuildOptionsProto, OptionOverrideProto,
};
use prost::Message;

/// How a program for one device becomes one for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// Shardy, for named shardings.
    Shardy,
    /// GSPMD, for tile assignments. XLA is about to remove it; older plugins have nothing else.
    Gspmd,
}

/// How to compile a program; one replica and one partition unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct CompileOptions {
    proto: CompileOptionsProto,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl CompileOptions {
    /// One replica of one partition, on a device of the plugin's choice.
    pub fn new() -> Self {
        Self {
            proto: CompileOptionsProto {
                executable_build_options: Some(ExecutableBuildOptionsProto {
                    device_ordinal: -1,
                    num_replicas: 1,
                    num_partitions: 1,
                    ..Default::default()
                }),
                ..Default::default()
            },
        }
    }

    /// Partitions the program over these devices, given by id in the order of the mesh, following
    /// its shardings.
    pub fn partitions(
        mut self,
        partitioner: Partitioner,
        device_ids: impl IntoIterator<Item = i64>,
    ) -> Self {
        let computation_devices: Vec<_> = device_ids
            .into_iter()
            .map(|id| ComputationDevice {
                replica_device_ids: vec![id],
            })
            .collect();
        let build = self.build_options();
        build.num_replicas = 1;
        build.num_partitions = computation_devices.len() as i64;
        build.use_spmd_partitioning = true;
        build.use_shardy_partitioner = partitioner == Partitioner::Shardy;
        build.device_assignment = Some(DeviceAssignmentProto {
            replica_count: 1,
            computation_count: computation_devices.len() as i32,
            computation_devices,
        });
        self
    }

    /// Runs a copy of the program on each of these devices, given by id.
    pub fn replicas(mut self, device_ids: impl IntoIterator<Item = i64>) -> Self {
        let replica_device_ids: Vec<_> = device_ids.into_iter().collect();
        let build = self.build_options();
        build.num_replicas = replica_device_ids.len() as i64;
        build.num_partitions = 1;
        build.device_assignment = Some(DeviceAssignmentProto {
            replica_count: replica_device_ids.len() as i32,
            computation_count: 1,
            computation_devices: vec![ComputationDevice { replica_device_ids }],
        });
        self
    }

    /// Runs the program on this device.
    pub fn device(self, device_id: i64) -> Self {
        self.replicas([device_id])
    }

    /// Sets one of XLA's flags by name, such as `xla_dump_to`.
    pub fn flag(mut self, name: impl Into<String>, value: impl Into<FlagValue>) -> Self {
        let value = Some(value.into().0);
        self.proto
            .env_option_overrides
            .insert(name.into(), OptionOverrideProto { value });
        self
    }

    /// The message itself, for what has no method here.
    pub fn proto_mut(&mut self) -> &mut CompileOptionsProto {
        &mut self.proto
    }

    /// The message itself.
    pub fn proto(&self) -> &CompileOptionsProto {
        &self.proto
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    fn build_options(&mut self) -> &mut ExecutableBuildOptionsProto {
        self.proto
            .executable_build_options
            .get_or_insert_with(Default::default)
    }
}

/// The value of one of XLA's flags: a string, a `bool`, an integer or a float.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagValue(Value);

impl From<&str> for FlagValue {
    fn from(value: &str) -> Self {
        Self(Value::StringField(value.to_owned()))
    }
}

impl From<String> for FlagValue {
    fn from(value: String) -> Self {
        Self(Value::StringField(value))
    }
}

impl From<bool> for FlagValue {
    fn from(value: bool) -> Self {
        Self(Value::BoolField(value))
    }
}

impl From<i64> for FlagValue {
    fn from(value: i64) -> Self {
        Self(Value::IntField(value))
    }
}

impl From<f64> for FlagValue {
    fn from(value: f64) -> Self {
        Self(Value::DoubleField(value))
    }
}
