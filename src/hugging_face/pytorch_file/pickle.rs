//! Reads the pickle of a state dict, and of nothing else.
//!
//! A pickle is a program for a stack machine that may call any function of Python. This reader has
//! the few instructions and names that a dictionary of tensors needs, and calls nothing: a name
//! outside of [`global`] or another instruction is an error that names it. Values are plain numbers
//! that refer to what was made before, so that no nesting can exhaust the stack, and each
//! instruction makes at most a few of them, so that memory is bounded by the length of the pickle.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use safetensors::Dtype;

/// What a pickle cannot be read for.
type Result<T> = std::result::Result<T, String>;

/// A tensor of a state dict: a view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View<'p> {
    /// The storage's element type.
    pub dtype: Dtype,
    /// The storage's file is called so.
    pub key: &'p str,
    /// The elements that the storage has.
    pub elements: u64,
    /// The first element of the tensor, counted in elements.
    pub first: u64,
    /// The sizes of the dimensions.
    pub shape: Vec<u64>,
    /// The distance of neighbours along each dimension, in elements.
    pub strides: Vec<u64>,
}

/// The names and tensors of the state dict that `pickle` builds.
pub(super) fn state_dict(pickle: &[u8]) -> Result<Vec<(&str, View<'_>)>> {
    let mut machine = Machine::new(pickle);
    let result = machine.run()?;
    machine.tensors_of(result)
}

/// A value on the stack; those with parts refer to them by number.
#[derive(Clone, Copy, Debug)]
enum Value<'p> {
    Nothing,
    Bool,
    Int(i64),
    Text(&'p str),
    Tuple(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// What a pickle may refer to by name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Global {
    OrderedDict,
    /// `(storage, first element, shape, strides, requires_grad, hooks)`
    RebuildTensor,
    /// `(tensor, requires_grad, hooks)`
    RebuildParameter,
    /// A kind of storage, by the type of its elements.
    Storage(Dtype),
}

/// The name's meaning, if it has one in a state dict.
fn global(module: &str, name: &str) -> Result<Global> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch", name) => storage(name).map(Global::Storage),
        _ => None,
    };
    known.ok_or_else(|| {
        let name: String = format!("{module}.{name}").chars().take(80).collect();
        format!(
            "its pickle refers to `{}`, which no state dict of plain tensors needs; nothing of it \
             is executed",
            name.escape_debug()
        )
    })
}

fn storage(name: &str) -> Option<Dtype> {
    Some(match name {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "DoubleStorage" => Dtype::F64,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

/// The highest version of the pickle protocol.
const PROTOCOL: u8 = 5;

/// The stack machine.
struct Machine<'p> {
    rest: &'p [u8],
    stack: Vec<Value<'p>>,
    /// The heights of the stack at which marks stand.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'p>>,
    tuples: Vec<Vec<Value<'p>>>,
    /// The names and values put into each dictionary, in order.
    dicts: Vec<Vec<(Value<'p>, Value<'p>)>>,
    storages: Vec<(Dtype, &'p str, u64)>,
    tensors: Vec<View<'p>>,
}

impl<'p> Machine<'p> {
    fn new(pickle: &'p [u8]) -> Self {
        Machine {
            rest: pickle,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tuples: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Follows the instructions up to the last, and returns what they made.
    fn run(&mut self) -> Result<Value<'p>> {
        loop {
            match self.byte()? {
                // PROTO
                0x80 => match self.byte()? {
                    version if version <= PROTOCOL => {}
                    version => return Err(format!("its pickle has the protocol {version}")),
                },
                // FRAME: how many bytes to read ahead
                0x95 => self.bytes(8).map(drop)?,
                b'(' => self.marks.push(self.stack.len()),
                b'.' => return self.pop(),
                b'N' => self.stack.push(Value::Nothing),
                // NEWTRUE, NEWFALSE
                0x88 | 0x89 => self.stack.push(Value::Bool),
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(value.into()));
                }
                b'K' => {
                    let value = self.byte()?;
                    self.stack.push(Value::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(value.into()));
                }
                // LONG1
                0x8a => {
                    let value = self.long()?;
                    self.stack.push(Value::Int(value));
                }
                // BINUNICODE, SHORT_BINUNICODE
                b'X' => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.text(length as usize)?;
                }
                0x8c => {
                    let length = self.byte()?;
                    self.text(length.into())?;
                }
                // BINPUT, LONG_BINPUT, MEMOIZE
                b'q' => {
                    let place = self.byte()?;
                    self.remember(place.into())?;
                }
                b'r' => {
                    let place = u32::from_le_bytes(self.array()?);
                    self.remember(place)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                // BINGET, LONG_BINGET
                b'h' => {
                    let place = self.byte()?;
                    self.recall(place.into())?;
                }
                b'j' => {
                    let place = u32::from_le_bytes(self.array()?);
                    self.recall(place)?;
                }
                b')' => self.tuple(Vec::new()),
                // TUPLE1, TUPLE2, TUPLE3
                count @ 0x85..=0x87 => {
                    let items = self.take(usize::from(count - 0x84))?;
                    self.tuple(items);
                }
                b't' => {
                    let items = self.since_mark()?;
                    self.tuple(items);
                }
                b'}' => self.dict(),
                b's' => {
                    let pair = self.take(2)?;
                    self.put(&pair)?;
                }
                b'u' => {
                    let pairs = self.since_mark()?;
                    self.put(&pairs)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack.push(Value::Global(global(module, name)?));
                }
                // STACK_GLOBAL
                0x93 => match self.take(2)?[..] {
                    [Value::Text(module), Value::Text(name)] => {
                        self.stack.push(Value::Global(global(module, name)?));
                    }
                    _ => return Err(malformed("a name that is no text")),
                },
                // BINPERSID
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                b'b' => self.set_attributes()?,
                other => {
                    return Err(format!(
                        "its pickle has the instruction {other:#04x}, which no state dict needs"
                    ));
                }
            }
        }
    }

    /// What the dictionary holds, all of it tensors.
    fn tensors_of(&self, result: Value<'p>) -> Result<Vec<(&'p str, View<'p>)>> {
        let Value::Dict(dict) = result else {
            return Err("it holds no dictionary of tensors".to_owned());
        };
        let tensor = |(name, value): &(Value<'p>, Value<'p>)| match (name, value) {
            (Value::Text(name), Value::Tensor(tensor)) => {
                Ok((*name, self.tensors[*tensor].clone()))
            }
            (Value::Text(name), _) => Err(format!(
                "`{}` in it is no tensor: expected the state dict of a model alone",
                name.chars().take(80).collect::<String>().escape_debug()
            )),
            _ => Err(malformed("a tensor without a name")),
        };
        self.dicts[dict].iter().map(tensor).collect()
    }

    /// A persistent id: `("storage", kind, key, device, elements)`.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop_tuple()?;
        let [
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            Value::Text(_),
            Value::Int(elements),
        ] = self.tuples[id][..]
        else {
            return Err(malformed("a persistent id that names no storage"));
        };
        let elements = size(elements)?;
        self.storages.push((dtype, key, elements));
        self.stack.push(Value::Storage(self.storages.len() - 1));
        Ok(())
    }

    fn call(&mut self) -> Result<()> {
        let arguments = self.pop_tuple()?;
        let function = self.pop()?;
        let arguments = self.tuples[arguments].as_slice();
        match (function, arguments) {
            (Value::Global(Global::OrderedDict), []) => self.dict(),
            (
                Value::Global(Global::RebuildTensor),
                &[
                    Value::Storage(storage),
                    Value::Int(first),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    Value::Bool,
                    Value::Dict(_),
                ],
            ) => {
                let (dtype, key, elements) = self.storages[storage];
                let view = View {
                    dtype,
                    key,
                    elements,
                    first: size(first)?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                };
                self.tensors.push(view);
                self.stack.push(Value::Tensor(self.tensors.len() - 1));
            }
            (
                Value::Global(Global::RebuildParameter),
                &[tensor @ Value::Tensor(_), Value::Bool, Value::Dict(_)],
            ) => self.stack.push(tensor),
            _ => return Err(malformed("a call with other arguments than a tensor has")),
        }
        Ok(())
    }

    /// Attributes of a dictionary, such as the versions of modules: they say nothing of tensors.
    fn set_attributes(&mut self) -> Result<()> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_)) => Ok(()),
            _ => Err(malformed("attributes of something that is no dictionary")),
        }
    }

    fn sizes(&self, tuple: usize) -> Result<Vec<u64>> {
        let sizes = self.tuples[tuple].iter().map(|value| match value {
            Value::Int(value) => size(*value),
            _ => Err(malformed("a size that is no number")),
        });
        sizes.collect()
    }

    fn tuple(&mut self, items: Vec<Value<'p>>) {
        self.tuples.push(items);
        self.stack.push(Value::Tuple(self.tuples.len() - 1));
    }

    fn dict(&mut self) {
        self.dicts.push(Vec::new());
        self.stack.push(Value::Dict(self.dicts.len() - 1));
    }

    /// Puts names and values, in turn, into the dictionary below them.
    fn put(&mut self, pairs: &[Value<'p>]) -> Result<()> {
        let (pairs, rest) = pairs.as_chunks::<2>();
        let dict = match self.stack.last() {
            Some(Value::Dict(dict)) if rest.is_empty() => *dict,
            _ => return Err(malformed("entries of something that is no dictionary")),
        };
        self.dicts[dict].extend(pairs.iter().map(|[name, value]| (*name, *value)));
        Ok(())
    }

    fn remember(&mut self, place: u32) -> Result<()> {
        let value = *self.stack.last().ok_or_else(|| malformed(EMPTY))?;
        self.memo.insert(place, value);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<()> {
        let value = self.memo.get(&place);
        let value = *value.ok_or_else(|| malformed("a value that was not made before"))?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'p>> {
        let value = self.take(1)?;
        Ok(value[0])
    }

    fn pop_tuple(&mut self) -> Result<usize> {
        match self.pop()? {
            Value::Tuple(tuple) => Ok(tuple),
            _ => Err(malformed("arguments that are no tuple")),
        }
    }

    /// The last `count` values, off the stack.
    fn take(&mut self, count: usize) -> Result<Vec<Value<'p>>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err(malformed(EMPTY)),
        }
    }

    /// The values since the last mark, off the stack with it.
    fn since_mark(&mut self) -> Result<Vec<Value<'p>>> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| malformed("values without a mark before them"))?;
        // No value below a mark is taken while it stands.
        Ok(self.stack.split_off(mark))
    }

    fn text(&mut self, length: usize) -> Result<()> {
        let bytes = self.bytes(length)?;
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| malformed("a text that is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    /// A number of up to eight bytes, the sign in the last.
    fn long(&mut self) -> Result<i64> {
        let length = usize::from(self.byte()?);
        let bytes = self.bytes(length)?;
        let is_negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut whole = [if is_negative { 0xff } else { 0 }; 8];
        let place = whole.get_mut(..length);
        place
            .ok_or_else(|| malformed("a number of more than 8 bytes"))?
            .copy_from_slice(bytes);
        Ok(i64::from_le_bytes(whole))
    }

    fn line(&mut self) -> Result<&'p str> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.bytes(end.ok_or_else(|| malformed(CUT))?)?;
        self.byte()?;
        std::str::from_utf8(line).map_err(|_| malformed("a name that is not UTF-8"))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| malformed(CUT))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<&'p [u8]> {
        let parts = self.rest.split_at_checked(length);
        let (bytes, rest) = parts.ok_or_else(|| malformed(CUT))?;
        self.rest = rest;
        Ok(bytes)
    }
}

const CUT: &str = "no end";
const EMPTY: &str = "an instruction that lacks its values";

fn malformed(problem: &str) -> String {
    format!("its pickle has {problem}")
}

fn size(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| malformed(&format!("the size {value}")))
}
