//! Profiles: what the devices of this process do between two moments, as the plugin records it.
//!
//! Not every plugin has a profiler: the one for TPUs has, that for the CPU has none. It has its own
//! table of functions and its own errors, so that it is called here and nowhere else.

use std::ffi::c_int;
use std::fmt;
use std::ptr;

use ankh_proto::profiler::ProfileOptions;
use prost::Message;
use prost::encoding::decode_varint;

use crate::api::{slice, string};
use crate::error::{Error, Result};
use crate::plugin::Plugin;
use crate::sys;

/// A profile under way. What was recorded is lost if it is dropped.
pub struct Profile {
    profiler: Profiler,
    // The library stays loaded anyway; this says whose the functions are.
    plugin: Plugin,
}

impl Plugin {
    /// Starts to record what the devices do, and the programs that they run. Nothing where the
    /// plugin has no profiler.
    pub fn start_profile(&self) -> Result<Option<Profile>> {
        let Some(api) = self.api().profiler() else {
            return Ok(None);
        };
        let options = ProfileOptions {
            version: 1,
            host_tracer_level: 2,
            device_tracer_level: 1,
            enable_hlo_proto: true,
            ..ProfileOptions::default()
        };
        let profiler = Profiler::create(api, &options.encode_to_vec())?;
        profiler.call(api.start, "PLUGIN_Profiler_Start")?;
        Ok(Some(Profile {
            profiler,
            plugin: self.clone(),
        }))
    }
}

impl Profile {
    /// Ends the profile, and gives what was recorded: an encoded `XSpace`, which TensorBoard opens.
    pub fn finish(self) -> Result<Vec<u8>> {
        let stop = self.profiler.api.stop;
        self.profiler.call(stop, "PLUGIN_Profiler_Stop")?;
        let mut recorded = self.profiler.collect()?;
        recorded.truncate(message_length(&recorded));
        Ok(recorded)
    }
}

/// Where the message ends: libtpu gives a zero byte more, which some readers take for damage. All
/// fields of an `XSpace` come with their lengths.
fn message_length(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut end = 0;
    while let (Ok(tag), Ok(length)) = (decode_varint(&mut rest), decode_varint(&mut rest)) {
        let Some(after) = usize::try_from(length).ok().and_then(|n| rest.get(n..)) else {
            break;
        };
        if tag & 7 != 2 {
            break;
        }
        rest = after;
        end = bytes.len() - rest.len();
    }
    match bytes[end..].iter().all(|byte| *byte == 0) {
        true => end,
        false => bytes.len(),
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("plugin", &self.plugin)
            .finish()
    }
}

/// A profiler of the plugin, destroyed on drop.
struct Profiler {
    api: &'static sys::ProfilerApi,
    raw: *mut sys::Profiler,
}

// SAFETY: no function of a profiler asks for the thread of another one, and `&Profiler` is used by
// one thread at a time since `Profile` gives out none.
unsafe impl Send for Profiler {}

impl Profiler {
    fn create(api: &'static sys::ProfilerApi, options: &[u8]) -> Result<Profiler> {
        let mut arguments = sys::ProfilerCreateArgs {
            struct_size: size_of::<sys::ProfilerCreateArgs>(),
            options: options.as_ptr().cast(),
            options_size: options.len(),
            profiler: ptr::null_mut(),
        };
        // SAFETY: the options outlive the call, and the profiler is given to us.
        unsafe { call(api, api.create, &mut arguments, "PLUGIN_Profiler_Create") }?;
        Ok(Profiler {
            api,
            raw: arguments.profiler,
        })
    }

    /// Calls a function that takes the profiler alone.
    fn call(
        &self,
        function: sys::ProfilerFunction<sys::ProfilerArgs>,
        name: &'static str,
    ) -> Result<()> {
        let mut arguments = sys::ProfilerArgs {
            struct_size: size_of::<sys::ProfilerArgs>(),
            profiler: self.raw,
        };
        // SAFETY: the profiler is live.
        unsafe { call(self.api, function, &mut arguments, name) }
    }

    /// The bytes that were recorded.
    fn collect(&self) -> Result<Vec<u8>> {
        const NAME: &str = "PLUGIN_Profiler_CollectData";
        let mut arguments = sys::ProfilerCollectDataArgs {
            struct_size: size_of::<sys::ProfilerCollectDataArgs>(),
            profiler: self.raw,
            buffer: ptr::null_mut(),
            buffer_size: 0,
        };
        // SAFETY: the profiler is live, and null asks for the size.
        unsafe { call(self.api, self.api.collect_data, &mut arguments, NAME) }?;
        if !arguments.buffer.is_null() {
            // SAFETY: the plugin keeps as many bytes there until the profiler is destroyed; they
            // are copied before.
            return Ok(unsafe { slice(arguments.buffer, arguments.buffer_size) }.to_vec());
        }
        // Other plugins want the room to be made here.
        let mut bytes = vec![0; arguments.buffer_size];
        if !bytes.is_empty() {
            arguments.buffer = bytes.as_mut_ptr();
            // SAFETY: the profiler is live, and there is as much room as it asked for.
            unsafe { call(self.api, self.api.collect_data, &mut arguments, NAME) }?;
        }
        Ok(bytes)
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // A failure leaves nothing to do.
        let _ = self.call(self.api.destroy, "PLUGIN_Profiler_Destroy");
    }
}

/// Calls a function of the profiler.
///
/// # Safety
///
/// The pointers among the arguments are what the function asks for: live handles of this plugin, or
/// memory of the size given beside them.
unsafe fn call<A>(
    api: &'static sys::ProfilerApi,
    function: sys::ProfilerFunction<A>,
    arguments: &mut A,
    name: &'static str,
) -> Result<()> {
    let Some(function) = function else {
        let missing = "the plugin's profiler has no such function".to_owned();
        return Err(Error::from_plugin(name, UNIMPLEMENTED, missing));
    };
    // SAFETY: the arguments are a whole structure with its size in it; its pointers are the
    // caller's promise.
    let error = unsafe { function(arguments) };
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the call has just returned this error to us.
    let (code, message) = unsafe { take_error(api, error) };
    Err(Error::from_plugin(name, code, message))
}

/// Of `absl::StatusCode`.
const UNKNOWN: c_int = 2;
const UNIMPLEMENTED: c_int = 12;

/// The code and the message of an error, which is destroyed.
///
/// # Safety
///
/// `error` is a live error of this profiler that the caller owns.
unsafe fn take_error(
    api: &'static sys::ProfilerApi,
    error: *mut sys::ProfilerError,
) -> (c_int, String) {
    let mut code = UNKNOWN;
    if let Some(get_code) = api.error_get_code {
        let mut arguments = sys::ProfilerErrorGetCodeArgs {
            struct_size: size_of::<sys::ProfilerErrorGetCodeArgs>(),
            private: ptr::null_mut(),
            error,
            code,
        };
        // SAFETY: the error is live. An error about it says nothing more and is left alone.
        if unsafe { get_code(&mut arguments) }.is_null() {
            code = arguments.code;
        }
    }
    let mut message = String::new();
    if let Some(get_message) = api.error_message {
        let mut arguments = sys::ProfilerErrorMessageArgs {
            struct_size: size_of::<sys::ProfilerErrorMessageArgs>(),
            private: ptr::null_mut(),
            error,
            message: ptr::null(),
            message_size: 0,
        };
        // SAFETY: the error is live, and its message lives as long; it is copied.
        message = unsafe {
            get_message(&mut arguments);
            string(arguments.message, arguments.message_size)
        };
    }
    if let Some(destroy) = api.error_destroy {
        let mut arguments = sys::ProfilerErrorDestroyArgs {
            struct_size: size_of::<sys::ProfilerErrorDestroyArgs>(),
            private: ptr::null_mut(),
            error,
        };
        // SAFETY: the error is ours to destroy.
        unsafe { destroy(&mut arguments) };
    }
    (code, message)
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;
    use std::sync::Mutex;

    use super::*;
    use crate::error::Code;
    use crate::fake::{Fake, keep};
    use crate::platform::Platform;
    use ankh_proto::profiler::XSpace;

    /// What the plugin below was asked, in order.
    static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    /// One test at a time may ask it.
    static TURN: Mutex<()> = Mutex::new(());

    /// A message with one field, and a byte that is none of it.
    const RECORDED: &[u8] = b"\x22\x04host\0";
    const MESSAGE: &[u8] = b"\x22\x04host";

    fn ask(what: impl Into<String>) -> *mut sys::ProfilerError {
        ASKED.lock().unwrap().push(what.into());
        ptr::null_mut()
    }

    unsafe extern "C" fn create(
        arguments: *mut sys::ProfilerCreateArgs,
    ) -> *mut sys::ProfilerError {
        // SAFETY: the caller gives live arguments, with so many bytes of options.
        let options = unsafe {
            (*arguments).profiler = NonNull::dangling().as_ptr();
            slice((*arguments).options.cast::<u8>(), (*arguments).options_size)
        };
        let options = ProfileOptions::decode(options).unwrap();
        ask(format!("create {}", options.device_tracer_level))
    }

    unsafe extern "C" fn destroy(_: *mut sys::ProfilerArgs) -> *mut sys::ProfilerError {
        ask("destroy")
    }

    unsafe extern "C" fn start(_: *mut sys::ProfilerArgs) -> *mut sys::ProfilerError {
        ask("start")
    }

    unsafe extern "C" fn fail(_: *mut sys::ProfilerArgs) -> *mut sys::ProfilerError {
        ask("fail");
        NonNull::dangling().as_ptr()
    }

    unsafe extern "C" fn stop(_: *mut sys::ProfilerArgs) -> *mut sys::ProfilerError {
        ask("stop")
    }

    /// Of a plugin that keeps the bytes.
    unsafe extern "C" fn lend(
        arguments: *mut sys::ProfilerCollectDataArgs,
    ) -> *mut sys::ProfilerError {
        // SAFETY: the caller gives live arguments.
        let arguments = unsafe { &mut *arguments };
        arguments.buffer = RECORDED.as_ptr().cast_mut();
        arguments.buffer_size = RECORDED.len();
        ask("lend")
    }

    /// Of a plugin that wants room for them.
    unsafe extern "C" fn fill(
        arguments: *mut sys::ProfilerCollectDataArgs,
    ) -> *mut sys::ProfilerError {
        // SAFETY: the caller gives live arguments.
        let arguments = unsafe { &mut *arguments };
        arguments.buffer_size = RECORDED.len();
        if arguments.buffer.is_null() {
            return ask("size");
        }
        // SAFETY: the caller was told how much room is needed.
        unsafe { ptr::copy(RECORDED.as_ptr(), arguments.buffer, RECORDED.len()) };
        ask("fill")
    }

    unsafe extern "C" fn code(
        arguments: *mut sys::ProfilerErrorGetCodeArgs,
    ) -> *mut sys::ProfilerError {
        // SAFETY: the caller gives live arguments.
        unsafe { (*arguments).code = 14 };
        ptr::null_mut()
    }

    unsafe extern "C" fn message(arguments: *mut sys::ProfilerErrorMessageArgs) {
        let text = "somebody else profiles";
        // SAFETY: the caller gives live arguments.
        unsafe {
            (*arguments).message = text.as_ptr().cast();
            (*arguments).message_size = text.len();
        }
    }

    unsafe extern "C" fn destroy_error(_: *mut sys::ProfilerErrorDestroyArgs) {
        ask("destroy the error");
    }

    fn api() -> sys::ProfilerApi {
        sys::ProfilerApi {
            struct_size: size_of::<sys::ProfilerApi>(),
            private: ptr::null_mut(),
            error_destroy: Some(destroy_error),
            error_message: Some(message),
            error_get_code: Some(code),
            create: Some(create),
            destroy: Some(destroy),
            start: Some(start),
            stop: Some(stop),
            collect_data: Some(lend),
        }
    }

    /// A plugin with this profiler, behind an extension that is none.
    fn plugin(api: sys::ProfilerApi) -> Plugin {
        let profiler = keep(Box::new(sys::ProfilerExtension {
            base: sys::ExtensionBase {
                struct_size: size_of::<sys::ProfilerExtension>(),
                kind: sys::PROFILER_EXTENSION,
                next: ptr::null_mut(),
            },
            api: keep(Box::new(api)),
        }));
        let other = keep(Box::new(sys::ExtensionBase {
            struct_size: size_of::<sys::ExtensionBase>(),
            kind: 24,
            next: ptr::from_ref(&profiler.base).cast_mut(),
        }));
        Fake::new().with_extension(other).plugin()
    }

    fn asked() -> Vec<String> {
        std::mem::take(&mut ASKED.lock().unwrap())
    }

    #[test]
    fn a_profile_gives_what_was_recorded_between_its_start_and_its_end() {
        let _turn = TURN.lock().unwrap();
        let profile = plugin(api()).start_profile().unwrap().unwrap();
        assert_eq!(asked(), ["create 1", "start"]);
        assert_eq!(profile.finish().unwrap(), MESSAGE);
        assert_eq!(asked(), ["stop", "lend", "destroy"]);
        let other = sys::ProfilerApi {
            collect_data: Some(fill),
            ..api()
        };
        let profile = plugin(other).start_profile().unwrap().unwrap();
        assert_eq!(profile.finish().unwrap(), MESSAGE);
        drop(plugin(api()).start_profile());
        let last: Vec<String> = asked().split_off(2);
        let expected = [
            "stop", "size", "fill", "destroy", "create 1", "start", "destroy",
        ];
        assert_eq!(last, expected);
    }

    #[test]
    fn a_profiler_that_cannot_start_says_why() {
        let _turn = TURN.lock().unwrap();
        let failing = sys::ProfilerApi {
            start: Some(fail),
            ..api()
        };
        let error = plugin(failing).start_profile().unwrap_err();
        assert_eq!(error.code(), Some(Code::Unavailable));
        assert!(
            error.to_string().contains("somebody else profiles"),
            "{error}"
        );
        assert_eq!(
            asked(),
            ["create 1", "fail", "destroy the error", "destroy"]
        );
    }

    #[test]
    fn a_plugin_without_a_profiler_records_nothing() {
        assert!(Fake::new().plugin().start_profile().unwrap().is_none());
        let short = sys::ProfilerApi {
            struct_size: size_of::<sys::ProfilerApi>() - size_of::<usize>(),
            ..api()
        };
        assert!(plugin(short).start_profile().unwrap().is_none());
        let cpu = Plugin::find(Platform::Cpu, None).unwrap();
        assert!(cpu.start_profile().unwrap().is_none());
    }

    #[test]
    #[ignore = "needs libtpu: make test-tpu"]
    fn libtpu_records_a_profile_that_can_be_read() {
        let tpu = Plugin::find(Platform::Tpu, None).unwrap();
        let profile = tpu.start_profile().unwrap().unwrap();
        let recorded = profile.finish().unwrap();
        let space = XSpace::decode(recorded.as_slice()).unwrap();
        let names: Vec<&str> = space
            .planes
            .iter()
            .map(|plane| plane.name.as_str())
            .collect();
        // Without a TPU, of the host alone.
        assert!(names.contains(&"/host:CPU"), "{names:?}");
    }
}
