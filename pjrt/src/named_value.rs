//! Named values: create options that ankh gives, attributes and properties that the plugin gives.

use std::fmt;
use std::marker::PhantomData;

use crate::api::{slice, string};
use crate::sys;

/// A name with a value: an option of a client or topology, an attribute of a plugin or device.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedValue {
    /// The name.
    pub name: String,
    /// The value.
    pub value: Value,
}

/// The value of a [`NamedValue`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    String(String),
    Int(i64),
    IntList(Vec<i64>),
    Float(f32),
    Bool(bool),
}

impl NamedValue {
    /// A value of any kind.
    pub fn new(name: impl Into<String>, value: Value) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }

    /// A string.
    pub fn string(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(name, Value::String(value.into()))
    }

    /// An integer.
    pub fn int(name: impl Into<String>, value: i64) -> Self {
        Self::new(name, Value::Int(value))
    }

    /// A list of integers.
    pub fn int_list(name: impl Into<String>, value: impl Into<Vec<i64>>) -> Self {
        Self::new(name, Value::IntList(value.into()))
    }

    /// Copies the plugin's values; those of a kind that this crate does not know are left out.
    ///
    /// # Safety
    ///
    /// `values` is null or has `length` valid values.
    pub(crate) unsafe fn copy(values: *const sys::NamedValue, length: usize) -> Vec<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            slice(values, length)
                .iter()
                .filter_map(|value| Self::copy_one(value))
                .collect()
        }
    }

    /// # Safety
    ///
    /// `raw` is a valid value.
    unsafe fn copy_one(raw: &sys::NamedValue) -> Option<Self> {
        // SAFETY: `kind` says which field of the union holds, and `value_size` how long it is.
        unsafe {
            let value = match raw.kind {
                sys::NAMED_VALUE_STRING => {
                    Value::String(string(raw.content.string, raw.value_size))
                }
                sys::NAMED_VALUE_INT => Value::Int(raw.content.int),
                sys::NAMED_VALUE_INT_LIST => {
                    Value::IntList(slice(raw.content.int_list, raw.value_size).to_vec())
                }
                sys::NAMED_VALUE_FLOAT => Value::Float(raw.content.float),
                sys::NAMED_VALUE_BOOL => Value::Bool(raw.content.boolean),
                _ => return None,
            };
            Some(Self::new(string(raw.name, raw.name_size), value))
        }
    }
}

impl fmt::Display for NamedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(value) => f.write_str(value),
            Self::Int(value) => write!(f, "{value}"),
            Self::IntList(value) => write!(f, "{value:?}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// Named values in the C form, which borrows the Rust form.
pub(crate) struct RawNamedValues<'a> {
    values: Vec<sys::NamedValue>,
    _borrowed: PhantomData<&'a [NamedValue]>,
}

impl<'a> RawNamedValues<'a> {
    pub fn new(values: &'a [NamedValue]) -> Self {
        let values = values
            .iter()
            .map(|NamedValue { name, value }| {
                let (kind, content, value_size) = match value {
                    Value::String(value) => (
                        sys::NAMED_VALUE_STRING,
                        sys::NamedValueContent {
                            string: value.as_ptr().cast(),
                        },
                        value.len(),
                    ),
                    Value::Int(value) => (
                        sys::NAMED_VALUE_INT,
                        sys::NamedValueContent { int: *value },
                        1,
                    ),
                    Value::IntList(value) => (
                        sys::NAMED_VALUE_INT_LIST,
                        sys::NamedValueContent {
                            int_list: value.as_ptr(),
                        },
                        value.len(),
                    ),
                    Value::Float(value) => (
                        sys::NAMED_VALUE_FLOAT,
                        sys::NamedValueContent { float: *value },
                        1,
                    ),
                    Value::Bool(value) => (
                        sys::NAMED_VALUE_BOOL,
                        sys::NamedValueContent { boolean: *value },
                        1,
                    ),
                };
                sys::NamedValue {
                    struct_size: size_of::<sys::NamedValue>(),
                    extension_start: std::ptr::null_mut(),
                    name: name.as_ptr().cast(),
                    name_size: name.len(),
                    kind,
                    content,
                    value_size,
                }
            })
            .collect();
        Self {
            values,
            _borrowed: PhantomData,
        }
    }

    pub fn as_ptr(&self) -> *const sys::NamedValue {
        self.values.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }
}
