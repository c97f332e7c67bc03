//! Named values: create options that ankh gives, attributes and properties that the plugin gives.

use std::fmt;
use std::marker::PhantomData;

use crate::api::{slice, string};
use crate::error::{Error, Result};
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

    /// A number.
    pub fn float(name: impl Into<String>, value: f32) -> Self {
        Self::new(name, Value::Float(value))
    }

    /// True or false.
    pub fn bool(name: impl Into<String>, value: bool) -> Self {
        Self::new(name, Value::Bool(value))
    }

    /// Copies the plugin's values; those of a kind that this crate does not know are left out. How
    /// long each is in memory it says itself, since a newer plugin's may have more fields.
    ///
    /// # Safety
    ///
    /// `values` is null or has `length` values of the plugin.
    pub(crate) unsafe fn copy(values: *const sys::NamedValue, length: usize) -> Result<Vec<Self>> {
        /// The most that a value is believed to take, many times what it takes today.
        const MOST: usize = 1024;
        const LEAST: usize = size_of::<sys::NamedValue>();
        if values.is_null() || length == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: there is one value at least, and each begins with its size.
        let size = unsafe { (&raw const (*values).struct_size).read() };
        let stride = size.saturating_add(align_of::<sys::NamedValue>() - 1)
            / align_of::<sys::NamedValue>()
            * align_of::<sys::NamedValue>();
        let mut copies = Vec::with_capacity(length);
        for index in 0..length {
            // SAFETY: the values before this one are of a size that can be, so that this one begins
            // where they end.
            let (raw, found) = unsafe {
                let raw = values.byte_add(index * if index == 0 { 0 } else { stride });
                (raw, (&raw const (*raw).struct_size).read())
            };
            if found != size || !(LEAST..=MOST).contains(&found) {
                return Err(Error::NamedValueSize {
                    index,
                    length,
                    expected: if index == 0 { LEAST } else { size },
                    found,
                });
            }
            // SAFETY: the value is at least as long as the fields that are known.
            copies.extend(unsafe { Self::copy_one(&*raw) });
        }
        Ok(copies)
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
                sys::NAMED_VALUE_BOOL => Value::Bool(raw.content.boolean != 0),
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
                        sys::NamedValueContent {
                            boolean: (*value).into(),
                        },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the plugin, each followed by `N` words that only a newer version knows.
    #[repr(C)]
    struct Longer<const N: usize> {
        value: sys::NamedValue,
        more: [u64; N],
    }

    /// `a=1`, `b=2` and `c=true`, where true is the byte 2.
    fn values<const N: usize>(size: usize) -> Vec<Longer<N>> {
        let value = |name: &'static str, kind, content| Longer {
            value: sys::NamedValue {
                struct_size: size,
                extension_start: std::ptr::null_mut(),
                name: name.as_ptr().cast(),
                name_size: name.len(),
                kind,
                content,
                value_size: 1,
            },
            more: [u64::MAX; N],
        };
        let int = |int| sys::NamedValueContent { int };
        vec![
            value("a", sys::NAMED_VALUE_INT, int(1)),
            value("b", sys::NAMED_VALUE_INT, int(2)),
            value(
                "c",
                sys::NAMED_VALUE_BOOL,
                sys::NamedValueContent { boolean: 2 },
            ),
        ]
    }

    fn copy<const N: usize>(values: &[Longer<N>]) -> Result<Vec<NamedValue>> {
        // SAFETY: the values lie one after the other, and their names and contents are static.
        unsafe { NamedValue::copy(values.as_ptr().cast(), values.len()) }
    }

    fn expected() -> [NamedValue; 3] {
        [
            NamedValue::int("a", 1),
            NamedValue::int("b", 2),
            NamedValue::new("c", Value::Bool(true)),
        ]
    }

    #[test]
    fn values_of_a_newer_plugin_are_found_by_their_own_size() {
        let known = size_of::<sys::NamedValue>();
        assert_eq!(copy(&values::<0>(known)).unwrap(), expected());
        assert_eq!(copy(&values::<1>(known + 8)).unwrap(), expected());
        assert_eq!(copy(&values::<9>(known + 72)).unwrap(), expected());
        // A last field of one byte is followed by padding, which its size leaves out.
        assert_eq!(copy(&values::<1>(known + 1)).unwrap(), expected());
    }

    #[test]
    fn values_of_a_size_that_cannot_be_are_refused() {
        let known = size_of::<sys::NamedValue>();
        for size in [0, 8, known - 1, 1025, usize::MAX - 3, usize::MAX] {
            let error = copy(&values::<1>(size)).unwrap_err().to_string();
            let says = format!("named value 0 of 3 says that it takes {size} bytes");
            assert!(error.contains(&says), "{error}");
        }
        let mut mixed = values::<1>(known + 8);
        mixed[2].value.struct_size = known;
        let error = copy(&mixed).unwrap_err().to_string();
        let says = format!("named value 2 of 3 says that it takes {known} bytes");
        assert!(error.contains(&says), "{error}");
    }

    #[test]
    fn no_values_are_none() {
        // SAFETY: null is allowed.
        let none = unsafe { NamedValue::copy(std::ptr::null(), 3) };
        assert_eq!(none.unwrap(), []);
        assert_eq!(copy(&values::<0>(0)[..0]).unwrap(), []);
    }
}
