//! Programs: the bytes a plugin compiles, or gives back, with the name of their format.

use std::ptr;

use ankh_proto::xla::{HloModuleProto, HloModuleProtoWithConfig};
use prost::Message;

use crate::error::{Error, Result};
use crate::sys;

const HLO: &str = "hlo";
const HLO_WITH_CONFIG: &str = "hlo_with_config";

/// A program in one of the formats that plugins read and write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The format's name: `hlo`, `hlo_with_config`, `mlir` ...
    pub format: String,
    /// The program itself.
    pub code: Vec<u8>,
}

impl Program {
    /// An encoded `HloModuleProto`.
    pub fn hlo(code: impl Into<Vec<u8>>) -> Self {
        Self {
            format: HLO.to_owned(),
            code: code.into(),
        }
    }

    /// An HLO module.
    pub fn hlo_module(module: &HloModuleProto) -> Self {
        Self::hlo(module.encode_to_vec())
    }

    /// A module of the StableHLO dialect, as MLIR text or bytecode.
    pub fn mlir(code: impl Into<Vec<u8>>) -> Self {
        Self {
            format: "mlir".to_owned(),
            code: code.into(),
        }
    }

    /// Decodes the HLO module, as an optimized program holds it.
    pub fn module(&self) -> Result<HloModuleProto> {
        let fail = |reason: String| Error::NotAModule {
            format: self.format.clone(),
            reason,
        };
        match self.format.as_str() {
            HLO => HloModuleProto::decode(self.code.as_slice()).map_err(|e| fail(e.to_string())),
            HLO_WITH_CONFIG => HloModuleProtoWithConfig::decode(self.code.as_slice())
                .map_err(|e| fail(e.to_string()))?
                .hlo_module
                .ok_or_else(|| fail("there is no module in it".to_owned())),
            _ => Err(fail("another format".to_owned())),
        }
    }
}

/// A program in the C form, which borrows the Rust form.
pub(crate) struct RawProgram<'a> {
    pub raw: sys::Program,
    _program: &'a Program,
}

impl<'a> RawProgram<'a> {
    pub fn new(program: &'a Program) -> Self {
        Self {
            raw: sys::Program {
                struct_size: size_of::<sys::Program>(),
                extension_start: ptr::null_mut(),
                // As an input the code is only read.
                code: program.code.as_ptr().cast_mut().cast(),
                code_size: program.code.len(),
                format: program.format.as_ptr().cast(),
                format_size: program.format.len(),
            },
            _program: program,
        }
    }
}
