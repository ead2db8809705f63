//! Questions that wait for the reader, in turns: each mesh has one answered, then the next has, so
//! that who asks for much makes its own mesh wait and no other.

use std::collections::{HashMap, VecDeque};

use crate::core::ids::Token;
use crate::core::rows::RecordQuery;

/// A question of a shard.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) shard: u16,
    pub(super) token: Token,
    pub(super) query: Box<RecordQuery>,
}

/// See the module. Bounded by what the queue of lookups admits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Meshes that wait, by whose turn it is.
    order: VecDeque<String>,
    /// What each of them waits for, none of it empty.
    waiting: HashMap<String, VecDeque<Question>>,
}

impl Turns {
    /// A question waits behind those of its mesh.
    pub(super) fn push(&mut self, question: Question) {
        let mesh_id = &question.query.mesh_id;
        if let Some(questions) = self.waiting.get_mut(mesh_id) {
            return questions.push_back(question);
        }
        self.order.push_back(mesh_id.clone());
        self.waiting.insert(mesh_id.clone(), [question].into());
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The question whose turn it is.
    pub(super) fn next(&mut self) -> Option<Question> {
        let mesh_id = self.order.pop_front()?;
        let questions = self.waiting.get_mut(&mesh_id)?;
        let question = questions.pop_front();
        if questions.is_empty() {
            self.waiting.remove(&mesh_id);
        } else {
            self.order.push_back(mesh_id);
        }
        question
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rows::RecordAsk;

    #[test]
    fn each_mesh_has_its_turn_and_its_own_order() {
        let mut turns = Turns::default();
        for (token, mesh) in ["a", "a", "a", "b", "a", "c", "b"].iter().enumerate() {
            turns.push(Question {
                shard: 0,
                token: Token(token as u64),
                query: Box::new(RecordQuery {
                    mesh_id: (*mesh).to_owned(),
                    ask: RecordAsk::Tally,
                }),
            });
        }
        let order = std::iter::from_fn(|| turns.next().map(|question| question.token.0));
        assert_eq!(order.collect::<Vec<_>>(), [0, 3, 5, 1, 6, 2, 4]);
        assert!(turns.is_empty() && turns.waiting.is_empty());
    }
}
