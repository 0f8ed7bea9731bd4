//! Which fields of a record are wanted, and where in it they stand.

use std::collections::BTreeMap;

use super::{datum, protobuf};
use crate::config::Pointer;

/// Fields by the paths that they have in a record. A path is the names from the record's own on; the number of an element
/// counts as its name.
#[derive(Debug)]
pub struct Wanted {
    paths: Vec<Vec<String>>,
    root: Branch,
    /// How they are read from Avro.
    data: datum::Plans,
    /// How they are read from Protobuf.
    messages: protobuf::Plans,
}

/// An object that is looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Branch(Vec<Member>);

/// A member of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    name: String,
    /// Whether JSON may write the name as it is.
    is_plain: bool,
    /// Which of the wanted fields it is.
    pub(super) places: Vec<usize>,
    /// What of it is wanted.
    pub(super) below: Branch,
}

impl Wanted {
    /// The fields `names`: each at the path that `pointers` gives it (JSON Pointer, RFC 6901), else at its name.
    pub fn new(names: &[String], pointers: &BTreeMap<String, Pointer>) -> Self {
        let path = |name: &String| match pointers.get(name) {
            Some(pointer) => pointer.path().to_vec(),
            None => vec![name.clone()],
        };
        Self::at(names.iter().map(path).collect())
    }

    /// What stands at these paths. The empty one is the whole: a format looks for it by itself.
    pub(super) fn at(paths: Vec<Vec<String>>) -> Self {
        let mut root = Branch::default();
        paths.iter().enumerate().for_each(|(place, path)| root.add(path, place));
        Self { paths, root, data: datum::Plans::default(), messages: protobuf::Plans::default() }
    }

    /// How many fields are wanted.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Their paths, in order.
    pub fn paths(&self) -> &[Vec<String>] {
        &self.paths
    }

    pub(super) fn data(&self) -> &datum::Plans {
        &self.data
    }

    pub(super) fn messages(&self) -> &protobuf::Plans {
        &self.messages
    }

    pub(super) fn root(&self) -> &Branch {
        &self.root
    }
}

impl Member {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name, where nothing in it is written in another way by JSON that escapes no more than it must.
    pub(super) fn plain_name(&self) -> Option<&str> {
        self.is_plain.then_some(&*self.name)
    }
}

/// What is wanted of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wants<'b> {
    All,
    /// Of a map or a list these parts; anything else is wanted whole.
    Of(&'b Branch),
}

impl<'b> Wants<'b> {
    /// What is wanted of a part that `find` finds in a branch; `None` where the part is not.
    pub(super) fn of_part(
        self,
        find: impl FnOnce(&'b Branch) -> Option<&'b Member>,
    ) -> Option<Self> {
        let Self::Of(branch) = self else { return Some(self) };
        let member = find(branch)?;
        Some(if member.places.is_empty() { Self::Of(&member.below) } else { Self::All })
    }
}

impl Branch {
    fn add(&mut self, path: &[String], place: usize) {
        let Some((name, rest)) = path.split_first() else { return };
        let at = self.0.iter().position(|member| member.name == *name).unwrap_or_else(|| {
            let is_plain = !name.contains(|c: char| matches!(c, '"' | '\\' | ..' '));
            let (name, below) = (name.clone(), Self::default());
            self.0.push(Member { name, is_plain, places: Vec::new(), below });
            self.0.len() - 1
        });
        match rest {
            [] => self.0[at].places.push(place),
            rest => self.0[at].below.add(rest, place),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member of that number.
    pub(super) fn at(&self, number: usize) -> Option<&Member> {
        self.0.get(number)
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.0
    }

    /// The member that is an element of a list, by its number.
    pub(super) fn element(&self, number: usize, next: &mut usize) -> Option<&Member> {
        self.find(&number.to_string(), next)
    }

    /// The member `name`, looked for at `next` first: records of one producer have their fields in one order, mostly the
    /// model's.
    pub(super) fn find(&self, name: &str, next: &mut usize) -> Option<&Member> {
        let is = |member: &Member| member.name == name;
        let at = match self.0.get(*next) {
            Some(member) if is(member) => *next,
            _ => self.0.iter().position(is)?,
        };
        *next = at + 1;
        self.0.get(at)
    }
}
