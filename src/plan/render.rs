//! A plan as text.

use std::fmt::{self, Display, Write};

use super::{Estimate, Memory, Plan, Profile, Role, StepArray};
use crate::named_variants::serialized_name;

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header(f)?;
        self.sharding(f)?;
        self.memory.table(f)?;
        self.collectives(f)?;
        if let Some(profile) = &self.profile {
            profile.table(f)?;
        }
        self.arithmetic(f)
    }
}

impl Plan {
    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slice = &self.slice;
        let torus = slice.torus.as_ref();
        let torus = torus.map_or_else(String::new, |torus| format!(", {torus}"));
        let hosts = plural(slice.hosts, "host");
        let chips = plural(slice.chips, "chip");
        writeln!(f, "slice    {}: {chips} on {hosts}{torus}", slice.name)?;
        let mesh = &self.mesh;
        writeln!(
            f,
            "mesh     data {} x fsdp {} x model {}",
            mesh.data, mesh.fsdp, mesh.model
        )?;
        let step = &self.step;
        let parameters = many(step.parameters as f64);
        writeln!(
            f,
            "model    {parameters} parameters, {}, remat {}, attention {}",
            step.compute,
            serialized_name(&step.remat),
            step.attention
        )?;
        writeln!(
            f,
            "batch    {} rows of {} + {} positions, {} on a chip at once{}",
            step.rows,
            step.input_length,
            step.target_length,
            step.device_rows,
            match step.gradient_accumulation {
                1 => String::new(),
                parts => format!(", in {parts} parts"),
            }
        )?;
        let fill = &step.fill;
        writeln!(
            f,
            "rows     {:.2} sequences each, inputs {:.1} % and targets {:.1} % full, {}",
            fill.sequences,
            100.0 * fill.input,
            100.0 * fill.target,
            step.lengths
        )
    }

    fn sharding(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nparameters")?;
        let parameters = self.arrays.iter().filter(|a| a.role == Role::Parameter);
        let rows: Vec<[String; 4]> = parameters.map(row).collect();
        let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or(0);
        let [name, dims, split] = [width(0), width(1), width(2)];
        for r in &rows {
            writeln!(
                f,
                "  {:name$}  {:dims$}  {:split$}  {}",
                r[0], r[1], r[2], r[3]
            )?;
        }
        for replicated in &self.replicated {
            writeln!(
                f,
                "  {} stays whole: {}",
                replicated.array, replicated.reason
            )?;
        }
        Ok(())
    }

    fn collectives(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.collectives.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\ncollectives of a step  across               times    input of a chip  bytes sent"
        )?;
        for c in &self.collectives {
            writeln!(
                f,
                "  {:20} {:20} {:>5}  {:>17}  {:>10}",
                c.kind.name(),
                c.axes.join(" x "),
                c.count,
                bytes(c.bytes),
                bytes(c.sent)
            )?;
        }
        Ok(())
    }

    fn arithmetic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\narithmetic   {} of the model a step, {} with what is computed again",
            operations(self.model_flops),
            operations(self.total_flops)
        )?;
        match &self.estimate {
            Some(estimate) => estimate.lines(f),
            None => writeln!(
                f,
                "time         not known: only the compiler for TPUs estimates it"
            ),
        }?;
        write!(
            f,
            "compiled in  {:.0} s, by {} (PJRT C API {})",
            self.compiled.seconds,
            self.compiled.plugin.display(),
            self.compiled.api_version
        )
    }
}

fn row(a: &StepArray) -> [String; 4] {
    let list = |dims: &[i64]| {
        let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
        dims.join(",")
    };
    let split = a.split();
    let axes = |axes: &Vec<String>| match axes.is_empty() {
        true => "-".into(),
        false => axes.join("+"),
    };
    let (whole, shard) = (&a.spec.shape, a.shard());
    [
        a.spec.name.clone(),
        format!("{}[{}]", whole.dtype.name(), list(&whole.dims)),
        match split.iter().all(Vec::is_empty) {
            true => "whole".into(),
            false => {
                let split: Vec<String> = split.iter().map(axes).collect();
                format!("{} -> [{}]", split.join(","), list(&shard.dims))
            }
        },
        bytes(shard.bytes()),
    ]
}

impl Memory {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = match self.limit {
            Some(limit) => format!(
                ", of {} ({:.0} %)",
                bytes(limit),
                100.0 * self.peak as f64 / limit as f64
            ),
            None => String::new(),
        };
        writeln!(
            f,
            "\nmemory of a chip   {} at most{limit}",
            bytes(self.peak)
        )?;
        let state = self.parameters + self.optimizer + self.batch;
        for (name, size) in [
            ("parameters", self.parameters),
            ("optimizer state", self.optimizer),
            ("batch", self.batch),
            ("padding of these", self.arguments.saturating_sub(state)),
            ("activations kept", self.activations),
            ("gradients", self.gradients),
            ("other temporaries", self.others()),
            ("new results", self.outputs),
            ("program", self.code),
        ] {
            writeln!(f, "  {name:18} {:>10}", bytes(size))?;
        }
        writeln!(
            f,
            "memory of a host   {} at most while a state is saved",
            bytes(self.host_save)
        )?;
        match self.host_local {
            0 => Ok(()),
            local => writeln!(f, "local saves        {} at most", bytes(local)),
        }
    }
}

impl Profile {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\ncycles of a step        forward  computed again  derivative    share"
        )?;
        let part = |n: u64| format!("{:.1} M", n as f64 / 1e6);
        for place in &self.scopes {
            let share = 100.0 * place.cycles() as f64 / self.cycles as f64;
            if share < 0.05 {
                continue;
            }
            writeln!(
                f,
                "  {:20} {:>9} {:>15} {:>11} {share:>6.1} %",
                place.name,
                part(place.forward),
                part(place.recompute),
                part(place.gradient)
            )?;
        }
        if self.kernels.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nkernels, in the above                      calls  places  cycles, if memory is slower   all"
        )?;
        for kernel in &self.kernels {
            writeln!(
                f,
                "  {:40} {:>5} {:>7} {:>7} {:>20} {:>9}",
                kernel.name,
                kernel.calls,
                kernel.places,
                kernel.schedule.bundles,
                kernel.memory_cycles,
                part(kernel.cycles)
            )?;
        }
        Ok(())
    }
}

impl Estimate {
    fn lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "step         {:.3} s: {:.1} M cycles by the compiler's estimate; what chips send takes {:.3} s more if none of it is hidden",
            self.step_seconds,
            self.cycles as f64 / 1e6,
            self.communication_seconds
        )?;
        writeln!(
            f,
            "throughput   {:.0} sequences/s, {:.1} % of the chips' peak (MFU)",
            self.examples_per_second,
            100.0 * self.mfu
        )?;
        writeln!(
            f,
            "run          {} steps of {:.0} sequences, {}: {:.1} days, {:.0} chip-hours",
            self.steps,
            self.examples,
            many(self.steps as f64 * self.examples),
            self.days,
            self.chip_hours
        )
    }
}

fn plural(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

fn many(count: f64) -> String {
    match count {
        n if n >= 1e9 => format!("{:.2} billion", n / 1e9),
        n if n >= 1e6 => format!("{:.1} million", n / 1e6),
        n => format!("{n:.0}"),
    }
}

fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = n as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    let mut text = String::new();
    let digits = if unit == 0 { 0 } else { 1 };
    // Writing to a string cannot fail.
    let _ = write!(text, "{size:.digits$} {}", units[unit]);
    text
}

fn operations(flops: f64) -> String {
    match flops {
        n if n >= 1e15 => format!("{:.2} PFLOP", n / 1e15),
        n if n >= 1e12 => format!("{:.2} TFLOP", n / 1e12),
        n => format!("{:.2} GFLOP", n / 1e9),
    }
}
