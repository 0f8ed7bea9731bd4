//! A datum as JSON text: whole numbers and decimals with all their digits, bytes as base64, a union's value by itself.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::datum::{Datum, Read, Wrong};
use super::decimal;
use super::types::{Id, Type, Types, deeper};

/// A datum may become so many times as long, or [`SMALL`] if that is more: its schema's names and symbols, and nulls, make
/// text of what takes no bytes.
const RATIO: usize = 100;

/// Whatever the ratio, so much is no bomb.
const SMALL: usize = 1 << 20;

/// How long the text of a datum of so many bytes may become.
pub(super) fn most(datum: usize) -> usize {
    datum.saturating_mul(RATIO).clamp(SMALL, MAX_TEXT)
}

/// Most bytes of text.
const MAX_TEXT: usize = 64 << 20;

/// Writes values of `types`.
pub(super) struct Writer<'w> {
    pub(super) types: &'w Types,
    pub(super) out: &'w mut Vec<u8>,
    /// How long `out` may become.
    pub(super) most: usize,
}

impl Writer<'_> {
    /// Writes a value; of a record only what is chosen, passing over the rest.
    pub(super) fn value(
        &mut self,
        id: Id,
        datum: &mut Datum<'_>,
        chosen: Option<&[String]>,
        depth: usize,
    ) -> Read<()> {
        if self.most < self.out.len() {
            return Err(Wrong::new(format!(
                "is as JSON more than {RATIO} times as long, or more than {} MiB",
                MAX_TEXT >> 20
            )));
        }
        let depth = deeper(depth)?;
        let types = self.types;
        match types.is(id) {
            Type::Union(branches) => {
                let branch = datum.choice(branches.len(), "a union", "branch")?;
                self.value(branches[branch], datum, chosen, depth)
            }
            Type::Record(fields) => self.record(id, fields, datum, chosen, depth),
            Type::Array(item) => {
                let mut next = b'[';
                datum.blocks("an array", |datum, count| {
                    (0..count).try_for_each(|_| {
                        self.out.push(std::mem::replace(&mut next, b','));
                        self.value(*item, datum, None, depth)
                    })
                })?;
                self.close(next, *b"[]");
                Ok(())
            }
            Type::Map(value) => {
                let mut next = b'{';
                datum.blocks("a map", |datum, count| {
                    (0..count).try_for_each(|_| {
                        self.out.push(std::mem::replace(&mut next, b','));
                        self.text(datum.text()?);
                        self.out.push(b':');
                        self.value(*value, datum, None, depth)
                    })
                })?;
                self.close(next, *b"{}");
                Ok(())
            }
            leaf @ (Type::Null
            | Type::Boolean
            | Type::Int
            | Type::Long
            | Type::Float
            | Type::Double
            | Type::Bytes
            | Type::Text
            | Type::Fixed(_)
            | Type::Decimal { .. }
            | Type::BigDecimal
            | Type::Uuid { .. }
            | Type::Duration
            | Type::Enum(_)) => self.leaf(leaf, datum),
        }
    }

    fn record(
        &mut self,
        id: Id,
        fields: &[(String, Id)],
        datum: &mut Datum<'_>,
        chosen: Option<&[String]>,
        depth: usize,
    ) -> Read<()> {
        let mut next = b'{';
        let is_chosen = |name: &String| chosen.is_none_or(|chosen| chosen.contains(name));
        for (name, id) in fields {
            let done = if is_chosen(name) {
                self.out.push(std::mem::replace(&mut next, b','));
                self.text(name);
                self.out.push(b':');
                self.value(*id, datum, None, depth)
            } else {
                self.types.skip(*id, datum, depth)
            };
            done.map_err(|wrong| wrong.within(name))?;
        }
        let types = self.types;
        for (name, default) in types.absent(id).iter().filter(|(name, _)| is_chosen(name)) {
            self.out.push(std::mem::replace(&mut next, b','));
            self.text(name);
            self.out.push(b':');
            self.raw(default);
        }
        self.close(next, *b"{}");
        Ok(())
    }

    /// Ends what `next` was pushed for; opens it before where nothing was.
    fn close(&mut self, next: u8, brackets: [u8; 2]) {
        if next == brackets[0] {
            self.out.push(brackets[0]);
        }
        self.out.push(brackets[1]);
    }

    fn leaf(&mut self, of: &Type, datum: &mut Datum<'_>) -> Read<()> {
        match of {
            Type::Boolean => {
                let word = if datum.boolean()? { "true" } else { "false" };
                self.raw(word);
            }
            Type::Int => self.number(i64::from(datum.int("an int")?)),
            Type::Long => self.number(datum.long("a long")?),
            Type::Float => self.json(&datum.float()?),
            Type::Double => self.json(&datum.double()?),
            Type::Bytes => self.bytes(datum.bytes()?),
            Type::Fixed(size) => self.bytes(datum.take(*size, "a fixed")?),
            Type::Text => self.text(datum.text()?),
            Type::Decimal { scale, size } => {
                self.raw(&decimal::text(datum.decimal(*size)?, *scale));
            }
            Type::BigDecimal => self.raw(&decimal::big_text(&decimal::big(datum)?)),
            Type::Uuid { fixed } => self.text(&decimal::uuid(datum, *fixed)?),
            Type::Duration => {
                let parts = datum.take(12, "a duration")?;
                for (part, name) in
                    parts.chunks_exact(4).zip(["{\"months\":", ",\"days\":", ",\"millis\":"])
                {
                    self.raw(name);
                    self.number(u32::from_le_bytes(part.try_into().unwrap_or_default()).into());
                }
                self.raw("}");
            }
            Type::Enum(symbols) => {
                let symbol = datum.choice(symbols.len(), "an enum", "symbol")?;
                self.text(&symbols[symbol]);
            }
            // The others have parts.
            Type::Null | Type::Array(_) | Type::Map(_) | Type::Union(_) | Type::Record(_) => {
                self.raw("null");
            }
        }
        Ok(())
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: i64) {
        // A Vec takes every write.
        write!(self.out, "{number}").unwrap_or_default();
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        self.raw(&BASE64.encode(bytes));
        self.out.push(b'"');
    }

    fn text(&mut self, text: &str) {
        self.json(text);
    }

    /// What JSON cannot say, a NaN, is null.
    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut *self.out, value).unwrap_or_default();
    }
}
