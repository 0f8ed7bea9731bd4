//! Columns, as a model's input or a table has them: what every side of the bench fills.

/// Records whose columns are made at once: `arrow-avro`'s default.
pub(crate) const CHUNK: usize = 1_024;

/// A column for each field.
#[derive(Debug)]
pub(crate) struct Columns(Vec<Column>);

/// Values of a field, of every record.
#[derive(Debug)]
pub(crate) enum Column {
    /// NaN where there is none.
    Numbers(Vec<f64>),
    /// The texts behind one another, and where each ends.
    Texts(String, Vec<usize>),
}

impl Columns {
    /// Of these fields numbers (true) or texts are taken.
    pub(crate) fn new(numbers: &[bool]) -> Self {
        let column = |number: &bool| match number {
            true => Column::Numbers(Vec::with_capacity(CHUNK)),
            false => Column::Texts(String::new(), Vec::with_capacity(CHUNK)),
        };
        Self(numbers.iter().map(column).collect())
    }

    /// How many columns.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends numbers, or NaN.
    pub(crate) fn numbers(&mut self, column: usize, appended: impl Iterator<Item = Option<f64>>) {
        if let Some(Column::Numbers(numbers)) = self.0.get_mut(column) {
            numbers.extend(appended.map(|number| number.unwrap_or(f64::NAN)));
        }
    }

    /// Appends a number, or NaN.
    pub(crate) fn number(&mut self, column: usize, number: Option<f64>) {
        if let Some(Column::Numbers(numbers)) = self.0.get_mut(column) {
            numbers.push(number.unwrap_or(f64::NAN));
        }
    }

    /// Appends a text, or an empty one.
    pub(crate) fn text(&mut self, column: usize, text: Option<&str>) {
        if let Some(Column::Texts(texts, ends)) = self.0.get_mut(column) {
            texts.push_str(text.unwrap_or_default());
            ends.push(texts.len());
        }
    }

    /// The sum of all numbers and lengths: the same of whoever fills them.
    pub(crate) fn sum(&self) -> f64 {
        let of = |column: &Column| match column {
            Column::Numbers(numbers) => numbers.iter().filter(|n| !n.is_nan()).sum::<f64>(),
            Column::Texts(texts, _) => texts.len() as f64,
        };
        self.0.iter().map(of).sum()
    }
}
