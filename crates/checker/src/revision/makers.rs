//! Which operation of unknown outcome made which revision. Several may fit one revision, and one of them be the only one
//! that fits another; a choice is changed as long as that explains more, so that nothing is called unexplained that is
//! not. (A matching, one augmenting path for each revision.)

use std::collections::{BTreeMap, VecDeque};

/// The choice so far.
#[derive(Default)]
pub(super) struct Makers {
    /// Who may have made a revision.
    fit: BTreeMap<i64, Vec<usize>>,
    /// Who is taken to have made it.
    chosen: BTreeMap<i64, usize>,
    /// The same the other way round.
    made: BTreeMap<usize, i64>,
}

impl Makers {
    /// One more revision, that one of `fit` made. False if that cannot be, whatever is chosen for those before.
    pub(super) fn explain(&mut self, revision: i64, fit: Vec<usize>) -> bool {
        self.fit.insert(revision, fit);
        let mut reached: BTreeMap<usize, i64> = BTreeMap::new();
        let mut todo = VecDeque::from([revision]);
        while let Some(next) = todo.pop_front() {
            for operation in &self.fit[&next] {
                if reached.contains_key(operation) {
                    continue;
                }
                reached.insert(*operation, next);
                match self.made.get(operation) {
                    Some(other) => todo.push_back(*other),
                    None => {
                        self.choose(*operation, revision, &reached);
                        return true;
                    }
                }
            }
        }
        // It was nobody: not to be taken from others in vain again.
        self.fit.remove(&revision);
        false
    }

    /// Gives each revision on the way to a free operation the one by which the way went on.
    fn choose(&mut self, free: usize, revision: i64, reached: &BTreeMap<usize, i64>) {
        let mut operation = free;
        loop {
            let next = reached[&operation];
            self.made.insert(operation, next);
            let before = self.chosen.insert(next, operation);
            if next == revision {
                return;
            }
            operation = before.expect("a revision on the way was explained before");
        }
    }

    /// Who made what.
    pub(super) fn made(self) -> BTreeMap<usize, i64> {
        self.made
    }
}
