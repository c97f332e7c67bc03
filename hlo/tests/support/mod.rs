//! Runs small programs on the CPU plugin.

use std::sync::OnceLock;

use ankh_hlo::Module;
use ankh_pjrt::{
    Argument, Client, CompileOptions, HostTensor, NamedValue, Platform, Plugin, Program,
};

/// One client of eight virtual devices for all tests of a process.
pub fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let plugin =
            Plugin::find(Platform::Cpu, None).expect("`make plugin` puts the CPU plugin in place");
        plugin
            .create_client(&[NamedValue::int("cpu_device_count", 8)])
            .expect("the plugin opens its devices")
    })
}

/// A compiled program on one device.
pub struct Compiled(ankh_pjrt::Executable);

/// Compiles for one device.
pub fn compile(module: &Module) -> Compiled {
    let program = Program::hlo(module.to_bytes());
    match client().compile(&program, &CompileOptions::new()) {
        Ok(executable) => Compiled(executable),
        Err(e) => panic!("{e}\n{}", module.text()),
    }
}

impl Compiled {
    /// Runs it; gives its results.
    pub fn run(&self, inputs: &[HostTensor]) -> Vec<HostTensor> {
        let device = &client().addressable_devices().unwrap()[0];
        let buffers: Vec<_> = inputs
            .iter()
            .map(|t| client().upload(t, device).unwrap())
            .collect();
        let outputs = self
            .0
            .execute(vec![buffers.iter().map(Argument::Keep).collect()])
            .unwrap();
        outputs[0].iter().map(|b| b.to_host().unwrap()).collect()
    }
}
