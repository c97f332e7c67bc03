//! Topologies: devices that need not be here, to compile for.

use std::ffi::c_char;

use super::{Client, DeviceDescription, Executable, NamedValue, Program, arguments, opaque};

opaque! {
    /// A set of devices with their links.
    TopologyDescription,
}

arguments! {
    TopologyDescriptionCreateArgs for TopologyDescriptionCreate {
        name: *const c_char,
        name_size: usize,
        create_options: *const NamedValue,
        num_options: usize,
        topology: *mut TopologyDescription,
    }
    TopologyDescriptionDestroyArgs for TopologyDescriptionDestroy {
        topology: *mut TopologyDescription,
    }
    TopologyDescriptionPlatformNameArgs for TopologyDescriptionPlatformName {
        topology: *const TopologyDescription,
        platform_name: *const c_char,
        platform_name_size: usize,
    }
    TopologyDescriptionPlatformVersionArgs for TopologyDescriptionPlatformVersion {
        topology: *mut TopologyDescription,
        platform_version: *const c_char,
        platform_version_size: usize,
    }
    TopologyDescriptionGetDeviceDescriptionsArgs for TopologyDescriptionGetDeviceDescriptions {
        topology: *const TopologyDescription,
        descriptions: *const *mut DeviceDescription,
        num_descriptions: usize,
    }
    TopologyDescriptionAttributesArgs for TopologyDescriptionAttributes {
        topology: *mut TopologyDescription,
        attributes: *const NamedValue,
        num_attributes: usize,
    }
    CompileArgs for Compile {
        topology: *const TopologyDescription,
        program: *const Program,
        compile_options: *const c_char,
        compile_options_size: usize,
        client: *mut Client,
        executable: *mut Executable,
    }
}
