//! An output as a table of rows, or as planes.

use pfc_onnx::Tensor;

/// Rows of `columns` numbers each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'t> {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    values: &'t [f32],
}

impl<'t> Table<'t> {
    /// Of `[rows, columns]`, with axes of length 1 before, or of a list of numbers.
    pub(crate) fn of(tensor: &'t Tensor) -> Option<Table<'t>> {
        let mut shape = &tensor.shape[..];
        while let [1, rest @ ..] = shape
            && rest.len() >= 2
        {
            shape = rest;
        }
        let (rows, columns) = match *shape {
            [rows] => (rows, 1),
            // A list whose batch was kept.
            [1, rows] if rows > 16 => (rows, 1),
            [rows, columns] => (rows, columns),
            _ => return None,
        };
        let is_whole = rows.checked_mul(columns) == Some(tensor.values.len()) && columns > 0;
        is_whole.then_some(Table { columns, rows, values: &tensor.values })
    }

    /// Numbers of a row.
    pub(crate) fn row(&self, row: usize) -> &'t [f32] {
        &self.values[row * self.columns..][..self.columns]
    }

    /// The first numbers of a row, which has as many.
    pub(crate) fn first<const N: usize>(&self, row: usize) -> [f32; N] {
        let mut first = [f32::NAN; N];
        first.iter_mut().zip(self.row(row)).for_each(|(to, from)| *to = *from);
        first
    }
}

/// Planes of one number for each place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes<'t> {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    values: &'t [f32],
}

impl<'t> Planes<'t> {
    /// Of `[channels, height, width]`, or the same with a batch of 1 before.
    pub(crate) fn of(tensor: &'t Tensor) -> Option<Planes<'t>> {
        let (channels, height, width) = match tensor.shape[..] {
            [1, channels, height, width] | [channels, height, width] => (channels, height, width),
            _ => return None,
        };
        let n_values = channels.checked_mul(height)?.checked_mul(width)?;
        let values = &tensor.values;
        (n_values == values.len() && n_values > 0).then_some(Planes {
            channels,
            height,
            width,
            values,
        })
    }

    /// The number of `channel` at a place; all three lie in the planes.
    pub(crate) fn at(&self, channel: usize, y: usize, x: usize) -> f32 {
        self.values[(channel * self.height + y) * self.width + x]
    }
}

/// `scores` [1, 800, 1], ….
pub(crate) fn describe(outputs: &[Tensor]) -> String {
    const SHOWN: usize = 16;
    let one = |tensor: &Tensor| {
        let name: String = tensor.name.escape_debug().take(40).collect();
        format!("`{name}` {:?}", tensor.shape)
    };
    let mut list: Vec<String> = outputs.iter().take(SHOWN).map(one).collect();
    if outputs.len() > SHOWN {
        list.push(format!("and {} more", outputs.len() - SHOWN));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let values = (0..n).map(|i| i as f32).collect();
        Tensor { name: "t".into(), shape: shape.to_vec(), values }
    }

    #[test]
    fn a_table_is_read_whatever_axes_of_one_lie_before() {
        let check = |shape: &[usize], expected: Option<(usize, usize)>| {
            let tensor = tensor(shape);
            let found = Table::of(&tensor).map(|table| (table.rows, table.columns));
            assert_eq!(found, expected, "{shape:?}");
        };
        check(&[6, 4], Some((6, 4)));
        check(&[1, 6, 4], Some((6, 4)));
        check(&[1, 1, 20, 1], Some((20, 1)));
        check(&[20], Some((20, 1)));
        check(&[1, 20], Some((20, 1)));
        check(&[2, 6, 4], None);
        check(&[], None);
        check(&[0, 4], Some((0, 4)));
        check(&[4, 0], None);
        let tensor = tensor(&[1, 3, 2]);
        assert_eq!(Table::of(&tensor).unwrap().first(2), [4.0, 5.0]);
    }

    #[test]
    fn shapes_that_their_values_do_not_fill_are_refused() {
        let mut short = tensor(&[1, 3, 2, 2]);
        assert_eq!(Planes::of(&short).unwrap().at(2, 1, 0), 10.0);
        short.values.pop();
        assert!(Planes::of(&short).is_none() && Table::of(&short).is_none());
        short.shape = vec![usize::MAX, 2];
        assert!(Table::of(&short).is_none());
        short.shape = vec![usize::MAX, usize::MAX, 2];
        assert!(Planes::of(&short).is_none());
    }
}
