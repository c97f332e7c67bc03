//! Executables: compiled programs, and their execution.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::api::{Api, slice, string};
use crate::buffer::Buffer;
use crate::client_handle::ClientHandle;
use crate::device::Device;
use crate::error::{Code, Error, Result};
use crate::named_value::NamedValue;
use crate::plugin::Plugin;
use crate::program::Program;
use crate::sys::{self, Function};

/// One argument of an execution.
///
/// A program may say that an output takes over the memory of an input
/// (`HloModuleProto::input_output_alias`). Whether that happens is decided here: `Donate` gives the
/// buffer away, so nothing can use it afterwards, and `Keep` leaves it as it is, at the price of a
/// copy if the program would have taken it over.
#[derive(Debug)]
pub enum Argument<'a> {
    /// The buffer is only read.
    Keep(&'a Buffer),
    /// The buffer is given away: the program may write to its memory, and it is freed with the
    /// execution.
    Donate(Buffer),
}

impl Argument<'_> {
    fn buffer(&self) -> &Buffer {
        match self {
            Self::Keep(buffer) => buffer,
            Self::Donate(buffer) => buffer,
        }
    }
}

impl<'a> From<&'a Buffer> for Argument<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self::Keep(buffer)
    }
}

impl From<Buffer> for Argument<'_> {
    fn from(buffer: Buffer) -> Self {
        Self::Donate(buffer)
    }
}

/// A compiled program on the devices of a client.
pub struct Executable {
    // Dropped before the client that it belongs to.
    compiled: CompiledProgram,
    raw: *mut sys::LoadedExecutable,
    devices: Vec<Device>,
    outputs: usize,
    client: Arc<ClientHandle>,
}

// SAFETY: the C API's executables may be used from any thread.
unsafe impl Send for Executable {}
// SAFETY: as above.
unsafe impl Sync for Executable {}

/// The plugin's loaded executable, destroyed on drop unless it was wrapped.
struct LoadedGuard<'a> {
    raw: *mut sys::LoadedExecutable,
    api: &'a Api,
}

impl Drop for LoadedGuard<'_> {
    fn drop(&mut self) {
        let mut arguments = sys::LoadedExecutableDestroyArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is ours and destroyed once. A failure leaves nothing to do.
        let _ = unsafe { self.api.call(&mut arguments) };
    }
}

impl Executable {
    /// Takes over an executable, also if this fails.
    ///
    /// # Safety
    ///
    /// `raw` is a live executable of the client that the caller owns.
    pub(crate) unsafe fn new(
        client: Arc<ClientHandle>,
        raw: *mut sys::LoadedExecutable,
    ) -> Result<Self> {
        let guard = LoadedGuard {
            raw,
            api: client.plugin().api(),
        };
        let mut program = sys::LoadedExecutableGetExecutableArgs {
            loaded_executable: raw,
            ..Default::default()
        };
        let mut devices = sys::LoadedExecutableAddressableDevicesArgs {
            executable: raw,
            ..Default::default()
        };
        // SAFETY: the executable is live; the program is given to us, and the devices are the
        // client's.
        let (compiled, devices) = unsafe {
            guard.api.call(&mut program)?;
            let compiled = CompiledProgram::new(client.plugin().clone(), program.executable);
            guard.api.call(&mut devices)?;
            let devices: Vec<_> = slice(devices.devices, devices.num_devices)
                .iter()
                .map(|&raw| Device::new(Arc::clone(&client), raw))
                .collect::<Result<_>>()?;
            (compiled, devices)
        };
        let outputs = compiled.output_count()?;
        std::mem::forget(guard);
        Ok(Self {
            compiled,
            raw,
            devices,
            outputs,
            client,
        })
    }

    /// The program without its devices: its sizes, its costs, its bytes.
    pub fn program(&self) -> &CompiledProgram {
        &self.compiled
    }

    /// The devices of this process that the program runs on, in the order of the argument lists.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Starts the program on every device of this process, each with its own list of arguments, and
    /// returns each device's outputs. They become ready later, and an execution that fails after
    /// its start shows in them.
    ///
    /// Donated arguments are gone whether this succeeds or not.
    pub fn execute(&self, arguments: Vec<Vec<Argument<'_>>>) -> Result<Vec<Vec<Buffer>>> {
        self.check(&arguments)?;
        let count = arguments.first().map_or(0, Vec::len);
        let kept: Vec<i64> = (0..count)
            .filter(|&i| {
                arguments
                    .iter()
                    .any(|list| matches!(list[i], Argument::Keep(_)))
            })
            .map(|i| i as i64)
            .collect();
        let mut options = sys::ExecuteOptions {
            struct_size: size_of::<sys::ExecuteOptions>(),
            extension_start: ptr::null_mut(),
            send_callbacks: ptr::null_mut(),
            recv_callbacks: ptr::null_mut(),
            num_send_ops: 0,
            num_recv_ops: 0,
            launch_id: 0,
            non_donatable_input_indices: kept.as_ptr(),
            num_non_donatable_input_indices: kept.len(),
            context: ptr::null_mut(),
            call_location: ptr::null(),
            num_tasks: 0,
            task_ids: ptr::null_mut(),
            incarnation_ids: ptr::null_mut(),
            multi_slice_config: ptr::null_mut(),
            use_major_to_minor_data_layout_for_callbacks: 0,
            hlo_output_callbacks: ptr::null_mut(),
            num_hlo_output_callbacks: 0,
        };
        let inputs: Vec<Vec<*mut sys::Buffer>> = arguments
            .iter()
            .map(|list| list.iter().map(|a| a.buffer().raw()).collect())
            .collect();
        let input_lists: Vec<*const *mut sys::Buffer> =
            inputs.iter().map(|list| list.as_ptr()).collect();
        let mut outputs = vec![vec![ptr::null_mut(); self.outputs]; self.devices.len()];
        let output_lists: Vec<*mut *mut sys::Buffer> =
            outputs.iter_mut().map(|list| list.as_mut_ptr()).collect();
        let mut call = sys::LoadedExecutableExecuteArgs {
            executable: self.raw,
            options: &mut options,
            argument_lists: input_lists.as_ptr(),
            num_devices: self.devices.len(),
            num_args: count,
            output_lists: output_lists.as_ptr(),
            ..Default::default()
        };
        // SAFETY: executable and buffers are live. There is one input list of `count` buffers and
        // one output list of the program's number of outputs per device, and all lists outlive the
        // call. Only buffers that are given away with this call may be taken over: the others are
        // named in the options.
        unsafe { self.client.plugin().api().call(&mut call) }?;
        // SAFETY: the outputs are given to us. Each is wrapped, and so freed, even if another one
        // fails.
        let wrapped: Vec<Vec<Result<Buffer>>> = unsafe {
            outputs
                .into_iter()
                .map(|list| {
                    list.into_iter()
                        .map(|raw| match raw.is_null() {
                            true => Err(missing_output()),
                            false => Buffer::new(Arc::clone(&self.client), raw),
                        })
                        .collect()
                })
                .collect()
        };
        wrapped
            .into_iter()
            .map(|list| list.into_iter().collect())
            .collect()
    }

    fn check(&self, arguments: &[Vec<Argument<'_>>]) -> Result<()> {
        if arguments.len() != self.devices.len() {
            return Err(Error::ArgumentLists {
                expected: self.devices.len(),
                found: arguments.len(),
            });
        }
        let expected = arguments.first().map_or(0, Vec::len);
        for (device, list) in arguments.iter().enumerate() {
            if list.len() != expected {
                return Err(Error::ArgumentCount {
                    device,
                    expected,
                    found: list.len(),
                });
            }
            for (i, argument) in list.iter().enumerate() {
                if !argument.buffer().belongs_to(&self.client) {
                    return Err(Error::AnotherClient {
                        what: format!("argument {i} of device {device}"),
                    });
                }
            }
        }
        Ok(())
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        drop(LoadedGuard {
            raw: self.raw,
            api: self.client.plugin().api(),
        });
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable")
            .field("devices", &self.devices)
            .field("outputs", &self.outputs)
            .finish()
    }
}

/// A plugin that reports success owes every output.
fn missing_output() -> Error {
    Error::Pjrt {
        code: Code::Internal,
        message: "the plugin left out an output".to_owned(),
        function: Function::LoadedExecutableExecute.name(),
    }
}

/// A compiled program, with or without devices.
pub struct CompiledProgram {
    raw: *mut sys::Executable,
    plugin: Plugin,
}

// SAFETY: the C API's executables may be used from any thread.
unsafe impl Send for CompiledProgram {}
// SAFETY: as above.
unsafe impl Sync for CompiledProgram {}

impl CompiledProgram {
    /// # Safety
    ///
    /// `raw` is a live executable of the plugin that the caller owns.
    pub(crate) unsafe fn new(plugin: Plugin, raw: *mut sys::Executable) -> Self {
        Self { raw, plugin }
    }

    /// The program's name.
    pub fn name(&self) -> Result<String> {
        let mut arguments = sys::ExecutableNameArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is live, and the name lives as long as it.
        unsafe {
            self.api().call(&mut arguments)?;
            Ok(string(arguments.name, arguments.name_size))
        }
    }

    /// The number of outputs on each device.
    pub fn output_count(&self) -> Result<usize> {
        let mut arguments = sys::ExecutableNumOutputsArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is live.
        unsafe { self.api().call(&mut arguments) }?;
        Ok(arguments.num_outputs)
    }

    /// The size of the generated code; negative where the plugin does not know.
    pub fn code_bytes(&self) -> Result<i64> {
        let mut arguments = sys::ExecutableSizeOfGeneratedCodeInBytesArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is live.
        unsafe { self.api().call(&mut arguments) }?;
        Ok(arguments.bytes)
    }

    /// What tells this program from others, as hexadecimal digits.
    pub fn fingerprint(&self) -> Result<String> {
        let mut arguments = sys::ExecutableFingerprintArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is live, and the bytes, which need not be text, live as long as
        // it.
        let bytes = unsafe {
            self.api().call(&mut arguments)?;
            slice(
                arguments.fingerprint.cast::<u8>(),
                arguments.fingerprint_size,
            )
        };
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The memory one device needs to run the program.
    pub fn memory_stats(&self) -> Result<ProgramMemory> {
        let mut a = sys::ExecutableGetCompiledMemoryStatsArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is live.
        unsafe { self.api().call(&mut a) }?;
        Ok(ProgramMemory {
            generated_code: a.generated_code,
            arguments: a.argument,
            outputs: a.output,
            aliased: a.alias,
            temporary: a.temporary,
            peak: a.peak,
            host_arguments: a.host_argument,
            host_outputs: a.host_output,
            host_temporary: a.host_temporary,
        })
    }

    /// The plugin's own estimates, such as `flops`. A plugin without them reports
    /// [`Code::Unimplemented`](crate::Code). A loop's body counts once.
    pub fn cost_analysis(&self) -> Result<Vec<NamedValue>> {
        let mut arguments = sys::ExecutableGetCostAnalysisArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is live, and the properties live as long as it.
        unsafe {
            self.api().call(&mut arguments)?;
            NamedValue::copy(arguments.properties, arguments.num_properties)
        }
    }

    /// The program after the compiler's passes, scheduled where the platform schedules.
    pub fn optimized_program(&self) -> Result<Program> {
        let mut program = sys::Program {
            struct_size: size_of::<sys::Program>(),
            extension_start: ptr::null_mut(),
            code: ptr::null_mut(),
            code_size: 0,
            format: ptr::null(),
            format_size: 0,
        };
        let mut arguments = sys::ExecutableOptimizedProgramArgs {
            executable: self.raw,
            program: &mut program,
            ..Default::default()
        };
        // SAFETY: the executable is live. Without a place for the code the plugin tells its size
        // and format; the second call is given a place of that size, and the format's name lives as
        // long as the executable.
        unsafe {
            self.api().call(&mut arguments)?;
            let mut code = vec![0u8; program.code_size];
            program.code = code.as_mut_ptr().cast();
            arguments.program = &mut program;
            self.api().call(&mut arguments)?;
            code.truncate(program.code_size);
            Ok(Program {
                format: string(program.format, program.format_size),
                code,
            })
        }
    }

    /// The compiled program as bytes, which [`Client::load`](crate::Client::load) of the same
    /// version of the same plugin takes.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        let mut arguments = sys::ExecutableSerializeArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is live. The bytes live until the deleter is called, which is done
        // once.
        unsafe {
            self.api().call(&mut arguments)?;
            let bytes = slice(arguments.bytes.cast::<u8>(), arguments.bytes_size).to_vec();
            if let Some(delete) = arguments.deleter {
                delete(arguments.serialized_executable);
            }
            Ok(bytes)
        }
    }

    fn api(&self) -> &Api {
        self.plugin.api()
    }
}

impl Drop for CompiledProgram {
    fn drop(&mut self) {
        let mut arguments = sys::ExecutableDestroyArgs {
            executable: self.raw,
            ..Default::default()
        };
        // SAFETY: the executable is ours and destroyed once. A failure leaves nothing to do.
        let _ = unsafe { self.api().call(&mut arguments) };
    }
}

impl fmt::Debug for CompiledProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledProgram")
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

/// The memory one device needs to run a program, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramMemory {
    /// The program itself.
    pub generated_code: i64,
    /// The arguments.
    pub arguments: i64,
    /// The outputs.
    pub outputs: i64,
    /// The part of the outputs that takes over memory of arguments.
    pub aliased: i64,
    /// Everything in between.
    pub temporary: i64,
    /// The most held at once, if the platform knows; 0 if not.
    pub peak: i64,
    /// Arguments in the host's memory.
    pub host_arguments: i64,
    /// Outputs in the host's memory.
    pub host_outputs: i64,
    /// What lies in between in the host's memory.
    pub host_temporary: i64,
}
