//! Parts of arrays on the host: what one device holds of an array that is split over several.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::host_tensor::HostTensor;

impl HostTensor {
    /// The elements within `part`, a range for each dimension.
    ///
    /// # Errors
    /// [`Error::Part`] where the part is of another rank or reaches outside.
    pub fn part(&self, part: &[Range<i64>]) -> Result<HostTensor> {
        let mut bytes = Vec::new();
        self.runs(part, |run| bytes.extend_from_slice(&self.bytes[run]))?;
        Ok(HostTensor {
            element_type: self.element_type,
            dims: part.iter().map(|range| range.end - range.start).collect(),
            bytes,
        })
    }

    /// Writes `values` in place of the elements within `part`.
    ///
    /// # Errors
    /// [`Error::Part`] where the part is of another rank, reaches outside or is not of the values'
    /// shape.
    pub fn set_part(&mut self, part: &[Range<i64>], values: &HostTensor) -> Result<()> {
        let fits = values.element_type == self.element_type
            && part
                .iter()
                .map(|r| r.end - r.start)
                .eq(values.dims.iter().copied());
        if !fits {
            return Err(self.misfit(part));
        }
        values.check()?;
        let mut runs = Vec::new();
        self.runs(part, |run| runs.push(run))?;
        let mut rest = &values.bytes[..];
        for run in runs {
            let (these, others) = rest.split_at(run.len());
            self.bytes[run].copy_from_slice(these);
            rest = others;
        }
        Ok(())
    }

    /// Calls `run` with each contiguous range of bytes of the part, in order.
    fn runs(&self, part: &[Range<i64>], mut run: impl FnMut(Range<usize>)) -> Result<()> {
        self.check()?;
        let inside = part.len() == self.dims.len()
            && part.iter().zip(&self.dims).all(|(range, &size)| {
                0 <= range.start && range.start <= range.end && range.end <= size
            });
        if !inside {
            return Err(self.misfit(part));
        }
        if part.iter().any(Range::is_empty) {
            return Ok(());
        }
        // Dimensions after `split` are whole, so that a run covers all of them and the range of
        // `split`.
        let split = (0..part.len())
            .rev()
            .find(|&d| part[d] != (0..self.dims[d]));
        let outer = split.unwrap_or(0);
        let width = self.element_type.byte_width();
        let stride = |d: usize| self.dims[d + 1..].iter().product::<i64>() as usize * width;
        let (start, length) = match part.get(outer) {
            Some(range) => (
                range.start as usize * stride(outer),
                (range.end - range.start) as usize * stride(outer),
            ),
            None => (0, width),
        };
        let mut index: Vec<i64> = part[..outer].iter().map(|range| range.start).collect();
        loop {
            let offset = (0..outer)
                .map(|d| index[d] as usize * stride(d))
                .sum::<usize>()
                + start;
            run(offset..offset + length);
            // The next index, the last dimension fastest.
            let Some(d) = (0..outer).rev().find(|&d| index[d] + 1 < part[d].end) else {
                return Ok(());
            };
            index[d] += 1;
            for later in d + 1..outer {
                index[later] = part[later].start;
            }
        }
    }

    fn misfit(&self, part: &[Range<i64>]) -> Error {
        Error::Part {
            part: format!("{part:?}"),
            of: format!("{}{:?}", self.element_type, self.dims),
        }
    }
}
