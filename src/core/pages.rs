//! Tables that grow by pages, so that growing moves nothing and doubles nothing: a million sessions
//! come without a pause to copy them, and without room for a second million.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Entries of a page. Small, so that a page lies where the allocator keeps small things and a
/// broker with three sessions pays for no more than this.
const PAGE: usize = 128;

fn place(index: usize) -> (usize, usize) {
    (index / PAGE, index % PAGE)
}

/// A list that only grows.
#[derive(Debug)]
pub struct Pages<T>(Vec<Vec<T>>);

impl<T> Pages<T> {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let full = self.0.len().saturating_sub(1) * PAGE;
        self.0.last().map_or(0, |last| full + last.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: T) {
        match self.0.last_mut().filter(|last| last.len() < PAGE) {
            Some(last) => last.push(entry),
            None => {
                let mut page = Vec::with_capacity(PAGE);
                page.push(entry);
                self.0.push(page);
            }
        }
    }

    /// An entry.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        let (page, at) = place(index);
        self.0.get(page)?.get(at)
    }

    /// An entry, mutably.
    #[must_use]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let (page, at) = place(index);
        self.0.get_mut(page)?.get_mut(at)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        let (page, at) = place(index);
        &self.0[page][at]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        let (page, at) = place(index);
        &mut self.0[page][at]
    }
}

/// A [`Slab`] in pages: entries under numbers, which are used again, those freed last first.
#[derive(Debug)]
pub struct PagedSlab<T> {
    pages: Vec<Slab<T>>,
    /// Pages with room.
    open: Vec<usize>,
    len: usize,
}

impl<T> PagedSlab<T> {
    /// An empty slab.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            open: Vec::new(),
            len: 0,
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Enters a value; gives its number.
    pub fn insert(&mut self, value: T) -> usize {
        let page = self.open.last().copied().unwrap_or_else(|| {
            self.pages.push(Slab::with_capacity(PAGE));
            self.open.push(self.pages.len() - 1);
            self.pages.len() - 1
        });
        let entries = &mut self.pages[page];
        let at = entries.insert(value);
        if entries.len() == PAGE {
            self.open.pop();
        }
        self.len += 1;
        page * PAGE + at
    }

    /// The value under a number.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        let (page, at) = place(index);
        self.pages.get(page)?.get(at)
    }

    /// The same, mutably.
    #[must_use]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let (page, at) = place(index);
        self.pages.get_mut(page)?.get_mut(at)
    }

    /// Takes a value out; its number is free.
    pub fn try_remove(&mut self, index: usize) -> Option<T> {
        let (page, at) = place(index);
        let entries = self.pages.get_mut(page)?;
        let was_full = entries.len() == PAGE;
        let value = entries.try_remove(at)?;
        if was_full {
            self.open.push(page);
        }
        self.len -= 1;
        Some(value)
    }

    /// All entries, by ascending number.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(page, entries)| {
            entries
                .iter()
                .map(move |(at, value)| (page * PAGE + at, value))
        })
    }
}

impl<T> Default for PagedSlab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_slab_is_a_map_from_the_numbers_it_gives(steps in vec((any::<bool>(), 0_usize..600), 0..2000)) {
            let mut slab = PagedSlab::new();
            let mut model = BTreeMap::new();
            for (enter, n) in steps {
                if enter {
                    let index = slab.insert(n);
                    prop_assert_eq!(model.insert(index, n), None);
                } else {
                    prop_assert_eq!(slab.try_remove(n), model.remove(&n));
                }
                prop_assert_eq!(slab.get(n), model.get(&n));
                prop_assert_eq!(slab.get_mut(n).copied(), model.get(&n).copied());
                prop_assert_eq!((slab.len(), slab.is_empty()), (model.len(), model.is_empty()));
            }
            prop_assert!(slab.iter().eq(model.iter().map(|(index, n)| (*index, n))));
            // What was freed is used before a page is added.
            prop_assert!(slab.pages.len() <= 2000 / PAGE + 1);
        }
    }

    #[test]
    fn a_list_is_one_over_its_pages() {
        let mut list = Pages::new();
        assert!(list.is_empty());
        for n in 0..3 * PAGE {
            assert_eq!(list.len(), n);
            list.push(n);
        }
        list[PAGE] += 1;
        *list.get_mut(0).unwrap() += 1;
        assert_eq!(
            (list[0], list[PAGE - 1], list[PAGE]),
            (1, PAGE - 1, PAGE + 1)
        );
        assert_eq!((list.get(3 * PAGE), list.iter().count()), (None, 3 * PAGE));
    }
}
