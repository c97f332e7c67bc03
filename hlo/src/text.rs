//! HLO's text form, for reading and for dumps. It follows XLA's own printer: attributes that a
//! reader needs to follow the computation are there, layouts and empty fields are not.

use std::collections::HashMap;
use std::fmt::Write;

use ankh_proto::xla;

use crate::shape::Size;

/// The whole module, computations in the order that XLA reads them, the entry last.
pub fn module(module: &xla::HloModuleProto) -> String {
    let names: HashMap<i64, &str> = module
        .computations
        .iter()
        .map(|c| (c.id, c.name.as_str()))
        .collect();
    let mut out = format!("HloModule {}", module.name);
    let aliases = module
        .input_output_alias
        .as_ref()
        .map_or(&[][..], |a| &a.entries);
    if !aliases.is_empty() {
        let pairs: Vec<String> = aliases
            .iter()
            .map(|e| {
                format!(
                    "{{{}}}: ({}, {{}}, may-alias)",
                    numbers(&e.output_shape_index),
                    e.parameter_number
                )
            })
            .collect();
        let _ = write!(out, ", input_output_alias={{ {} }}", pairs.join(", "));
    }
    out.push_str("\n\n");
    for c in &module.computations {
        computation(&mut out, c, c.id == module.entry_computation_id, &names);
    }
    out
}

fn computation(
    out: &mut String,
    c: &xla::HloComputationProto,
    entry: bool,
    names: &HashMap<i64, &str>,
) {
    let instructions: HashMap<i64, &str> = c
        .instructions
        .iter()
        .map(|i| (i.id, i.name.as_str()))
        .collect();
    let _ = writeln!(out, "{}%{} {{", if entry { "ENTRY " } else { "" }, c.name);
    for i in &c.instructions {
        let root = if i.id == c.root_id { "ROOT " } else { "" };
        let ty = i.shape.as_ref().map(shape).unwrap_or_default();
        let _ = write!(out, "  {root}%{} = {ty} {}(", i.name, i.opcode);
        match i.opcode.as_str() {
            "parameter" => {
                let _ = write!(out, "{}", i.parameter_number);
            }
            "constant" => out.push_str(&i.literal.as_ref().map(literal).unwrap_or_default()),
            _ => {
                let operands: Vec<String> = i
                    .operand_ids
                    .iter()
                    .map(|o| format!("%{}", instructions.get(o).copied().unwrap_or("?")))
                    .collect();
                out.push_str(&operands.join(", "));
            }
        }
        out.push(')');
        attributes(out, i, names);
        out.push('\n');
    }
    out.push_str("}\n\n");
}

fn attributes(out: &mut String, i: &xla::HloInstructionProto, names: &HashMap<i64, &str>) {
    let called = |n: usize| {
        let id = i.called_computation_ids.get(n);
        id.and_then(|id| names.get(id)).copied().unwrap_or("?")
    };
    match i.opcode.as_str() {
        "while" => {
            let _ = write!(out, ", condition=%{}, body=%{}", called(1), called(0));
        }
        "conditional" => {
            let _ = write!(
                out,
                ", true_computation=%{}, false_computation=%{}",
                called(0),
                called(1)
            );
        }
        "get-tuple-element" => {
            let _ = write!(out, ", index={}", i.tuple_index);
        }
        _ if !i.called_computation_ids.is_empty() => {
            let _ = write!(out, ", to_apply=%{}", called(0));
        }
        _ => {}
    }
    let takes_dims =
        ["broadcast", "reduce", "transpose", "concatenate", "reverse"].contains(&i.opcode.as_str());
    if takes_dims {
        let _ = write!(out, ", dimensions={{{}}}", numbers(&i.dimensions));
    }
    if i.opcode == "iota" {
        let _ = write!(out, ", iota_dimension={}", numbers(&i.dimensions));
    }
    if !i.comparison_direction.is_empty() {
        let _ = write!(out, ", direction={}", i.comparison_direction);
    }
    if let Some(d) = &i.dot_dimension_numbers {
        for (name, dims) in [
            ("lhs_batch_dims", &d.lhs_batch_dimensions),
            ("lhs_contracting_dims", &d.lhs_contracting_dimensions),
            ("rhs_batch_dims", &d.rhs_batch_dimensions),
            ("rhs_contracting_dims", &d.rhs_contracting_dimensions),
        ] {
            if !dims.is_empty() {
                let _ = write!(out, ", {name}={{{}}}", numbers(dims));
            }
        }
    }
    if !i.slice_dimensions.is_empty() {
        let dims: Vec<String> = i
            .slice_dimensions
            .iter()
            .map(|s| {
                if s.stride == 1 {
                    format!("[{}:{}]", s.start, s.limit)
                } else {
                    format!("[{}:{}:{}]", s.start, s.limit, s.stride)
                }
            })
            .collect();
        let _ = write!(out, ", slice={{{}}}", dims.join(", "));
    }
    if !i.dynamic_slice_sizes.is_empty() {
        let _ = write!(
            out,
            ", dynamic_slice_sizes={{{}}}",
            numbers(&i.dynamic_slice_sizes)
        );
    }
    if let Some(p) = &i.padding_config {
        let dims: Vec<String> = p
            .dimensions
            .iter()
            .map(|d| {
                format!(
                    "{}_{}_{}",
                    d.edge_padding_low, d.edge_padding_high, d.interior_padding
                )
            })
            .collect();
        let _ = write!(out, ", padding={}", dims.join("x"));
    }
    if let Some(g) = &i.gather_dimension_numbers {
        let _ = write!(
            out,
            ", offset_dims={{{}}}, collapsed_slice_dims={{{}}}, start_index_map={{{}}}, index_vector_dim={}, slice_sizes={{{}}}",
            numbers(&g.offset_dims),
            numbers(&g.collapsed_slice_dims),
            numbers(&g.start_index_map),
            g.index_vector_dim,
            numbers(&i.gather_slice_sizes)
        );
    }
    if let Some(s) = &i.scatter_dimension_numbers {
        let _ = write!(
            out,
            ", update_window_dims={{{}}}, inserted_window_dims={{{}}}, scatter_dims_to_operand_dims={{{}}}, index_vector_dim={}",
            numbers(&s.update_window_dims),
            numbers(&s.inserted_window_dims),
            numbers(&s.scatter_dims_to_operand_dims),
            s.index_vector_dim
        );
    }
    if i.opcode == "rng-bit-generator" {
        let name = if i.rng_algorithm == xla::RandomAlgorithm::RngPhilox as i32 {
            "rng_philox"
        } else {
            "rng_three_fry"
        };
        let _ = write!(out, ", algorithm={name}");
    }
    if !i.custom_call_target.is_empty() {
        let _ = write!(out, ", custom_call_target=\"{}\"", i.custom_call_target);
    }
    if let Some(attributes) = &i.frontend_attributes {
        let pairs = attributes.map.iter();
        let pairs = pairs.map(|(key, value)| format!("{key}={value:?}"));
        let pairs: Vec<String> = pairs.collect();
        let _ = write!(out, ", frontend_attributes={{{}}}", pairs.join(", "));
    }
    if let Some(s) = &i.sharding {
        let _ = write!(out, ", sharding={}", sharding(s));
    }
    if let Some(m) = &i.metadata {
        let _ = write!(
            out,
            ", metadata={{op_name=\"{}\" source=\"{}:{}\"}}",
            m.op_name, m.source_file, m.source_line
        );
    }
}

fn sharding(s: &xla::OpSharding) -> String {
    if let Some(named) = &s.named_sharding {
        return named_sharding(named);
    }
    match s.r#type() {
        xla::op_sharding::Type::Tuple => {
            let parts: Vec<String> = s.tuple_shardings.iter().map(sharding).collect();
            format!("{{{}}}", parts.join(", "))
        }
        xla::op_sharding::Type::Other => tile_sharding(s),
        _ => "{replicated}".into(),
    }
}

/// `{devices=[4,1,2]<=[4,2] last_tile_dim_replicate}`
fn tile_sharding(s: &xla::OpSharding) -> String {
    let mesh = numbers(&s.iota_reshape_dims);
    let order = match s.iota_transpose_perm.is_sorted() {
        true => String::new(),
        false => format!("T({})", numbers(&s.iota_transpose_perm)),
    };
    let copies = match s.replicate_on_last_tile_dim {
        true => " last_tile_dim_replicate",
        false => "",
    };
    let tiles = numbers(&s.tile_assignment_dimensions);
    format!("{{devices=[{tiles}]<=[{mesh}]{order}{copies}}}")
}

/// `{mesh["data"=4, "model"=2], [{"data"}, {}]}`
fn named_sharding(s: &xla::NamedShardingProto) -> String {
    let axes = s.mesh.as_ref().map_or(&[][..], |m| &m.axes);
    let name = |a: &xla::AxisRefProto| {
        axes.get(a.mesh_axis_index as usize)
            .map_or("?", |x| x.name.as_str())
    };
    let dims: Vec<String> = s
        .dim_shardings
        .iter()
        .map(|d| {
            format!(
                "{{{}}}",
                d.axes
                    .iter()
                    .map(|a| format!("\"{}\"", name(a)))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        })
        .collect();
    let mesh: Vec<String> = axes
        .iter()
        .map(|a| format!("\"{}\"={}", a.name, a.size))
        .collect();
    format!("{{mesh[{}], [{}]}}", mesh.join(", "), dims.join(", "))
}

fn shape(s: &xla::ShapeProto) -> String {
    match s.element_type() {
        xla::PrimitiveType::Tuple => {
            format!(
                "({})",
                s.tuple_shapes
                    .iter()
                    .map(shape)
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        t => format!(
            "{}[{}]",
            t.as_str_name().to_ascii_lowercase(),
            numbers(&s.dimensions)
        ),
    }
}

/// A short constant's values; the number of elements of a long one.
fn literal(l: &xla::LiteralProto) -> String {
    let dims = l.shape.as_ref().map_or(&[][..], |s| &s.dimensions);
    match Size::product(dims).get() {
        Some(elements) if elements <= 8 => {}
        Some(elements) => return format!("/* {elements} elements */"),
        None => return "/* elements without number */".into(),
    }
    let values: Vec<String> = match l.shape.as_ref().map(|s| s.element_type()) {
        Some(xla::PrimitiveType::Pred) => l.preds.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::U8) => l.u8s.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::S32) => l.s32s.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::U32) => l.u32s.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::S64) => l.s64s.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::U64) => l.u64s.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::F32) => l.f32s.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::F64) => l.f64s.iter().map(|v| v.to_string()).collect(),
        Some(xla::PrimitiveType::Bf16) => {
            halves(&l.bf16s, |b| half::bf16::from_le_bytes(b).to_string())
        }
        Some(xla::PrimitiveType::F16) => {
            halves(&l.f16s, |b| half::f16::from_le_bytes(b).to_string())
        }
        _ => vec![],
    };
    if dims.is_empty() {
        values.join("")
    } else {
        format!("{{{}}}", values.join(", "))
    }
}

fn halves(bytes: &[u8], show: impl Fn([u8; 2]) -> String) -> Vec<String> {
    bytes.as_chunks::<2>().0.iter().map(|b| show(*b)).collect()
}

fn numbers<N: ToString>(values: &[N]) -> String {
    values
        .iter()
        .map(|v| v.to_string())
        .collect::<Vec<_>>()
        .join(",")
}
