//! Executables: compiled programs, and the same loaded onto devices.

use std::ffi::{c_char, c_int, c_void};

use super::{Buffer, Client, Device, Event, NamedValue, Program, arguments, opaque};

opaque! {
    /// A compiled program.
    Executable,
    /// A compiled program on the devices of a client.
    LoadedExecutable,
    /// What backs serialized bytes.
    SerializedExecutable,
}

/// What may be said of one execution. Only the inputs that must survive are ankh's concern.
#[repr(C)]
pub(crate) struct ExecuteOptions {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub send_callbacks: *mut *mut c_void,
    pub recv_callbacks: *mut *mut c_void,
    pub num_send_ops: usize,
    pub num_recv_ops: usize,
    pub launch_id: c_int,
    pub non_donatable_input_indices: *const i64,
    pub num_non_donatable_input_indices: usize,
    pub context: *mut c_void,
    pub call_location: *const c_char,
    pub num_tasks: usize,
    pub task_ids: *mut c_int,
    pub incarnation_ids: *mut i64,
    pub multi_slice_config: *mut c_void,
    pub use_major_to_minor_data_layout_for_callbacks: u8,
    pub hlo_output_callbacks: *mut c_void,
    pub num_hlo_output_callbacks: usize,
}

arguments! {
    ExecutableDestroyArgs for ExecutableDestroy {
        executable: *mut Executable,
    }
    ExecutableNameArgs for ExecutableName {
        executable: *mut Executable,
        name: *const c_char,
        name_size: usize,
    }
    ExecutableNumOutputsArgs for ExecutableNumOutputs {
        executable: *mut Executable,
        num_outputs: usize,
    }
    ExecutableSizeOfGeneratedCodeInBytesArgs for ExecutableSizeOfGeneratedCodeInBytes {
        executable: *mut Executable,
        bytes: i64,
    }
    ExecutableFingerprintArgs for ExecutableFingerprint {
        executable: *mut Executable,
        fingerprint: *const c_char,
        fingerprint_size: usize,
    }
    ExecutableGetCostAnalysisArgs for ExecutableGetCostAnalysis {
        executable: *mut Executable,
        num_properties: usize,
        properties: *const NamedValue,
    }
    ExecutableGetCompiledMemoryStatsArgs for ExecutableGetCompiledMemoryStats {
        executable: *mut Executable,
        generated_code: i64,
        argument: i64,
        output: i64,
        alias: i64,
        temporary: i64,
        host_generated_code: i64,
        host_argument: i64,
        host_output: i64,
        host_alias: i64,
        host_temporary: i64,
        peak: i64,
    }
    ExecutableOptimizedProgramArgs for ExecutableOptimizedProgram {
        executable: *mut Executable,
        program: *mut Program,
    }
    ExecutableSerializeArgs for ExecutableSerialize {
        executable: *const Executable,
        bytes: *const c_char,
        bytes_size: usize,
        serialized_executable: *mut SerializedExecutable,
        deleter: Option<unsafe extern "C" fn(*mut SerializedExecutable)>,
    }
    ExecutableDeserializeAndLoadArgs for ExecutableDeserializeAndLoad {
        client: *mut Client,
        serialized_executable: *const c_char,
        serialized_executable_size: usize,
        loaded_executable: *mut LoadedExecutable,
        overridden_compile_options: *const c_char,
        overridden_compile_options_size: usize,
        load_options: *mut c_void,
    }
    LoadedExecutableDestroyArgs for LoadedExecutableDestroy {
        executable: *mut LoadedExecutable,
    }
    LoadedExecutableGetExecutableArgs for LoadedExecutableGetExecutable {
        loaded_executable: *mut LoadedExecutable,
        executable: *mut Executable,
    }
    LoadedExecutableAddressableDevicesArgs for LoadedExecutableAddressableDevices {
        executable: *mut LoadedExecutable,
        devices: *const *mut Device,
        num_devices: usize,
    }
    LoadedExecutableExecuteArgs for LoadedExecutableExecute {
        executable: *mut LoadedExecutable,
        options: *mut ExecuteOptions,
        argument_lists: *const *const *mut Buffer,
        num_devices: usize,
        num_args: usize,
        output_lists: *const *mut *mut Buffer,
        device_complete_events: *mut *mut Event,
        execute_device: *mut Device,
    }
}
