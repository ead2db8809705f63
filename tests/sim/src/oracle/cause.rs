//! What is given to a shard: the input, and what the oracle knows of it.

use holdfast_core::hello::Hello;
use holdfast_core::ids::{ConnId, Token};
use holdfast_core::input::{Ask, Closing, Input};
use holdfast_core::rows::{BootRow, MemberRow, StoreAnswer, StoreFailure};
use holdfast_core::watch::FetchFailure;

use crate::said::{Frame, HelloSaid};

/// What was given to a shard.
#[derive(Debug)]
pub(crate) enum Cause {
    Opened,
    Frame(Frame),
    Binary,
    Ping,
    Pong(Vec<u8>),
    Closed(Closing),
    Adopted(Box<Hello>, std::rc::Rc<HelloSaid>),
    Stored(Token, Result<(), StoreFailure>),
    Answered(Token, Result<StoreAnswer, StoreFailure>),
    Fetched(Token, Result<String, FetchFailure>),
    Boot(BootRow),
    Put(Box<MemberRow>),
    Ask(Ask),
    Shutdown,
    Time,
}

impl Cause {
    /// Its name.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Frame(_) => "frame",
            Self::Binary => "binary",
            Self::Ping => "pinged",
            Self::Pong(_) => "ponged",
            Self::Closed(Closing::Clean) => "closed clean",
            Self::Closed(Closing::Abrupt) => "closed abrupt",
            Self::Adopted(..) => "adopted",
            Self::Stored(_, Ok(())) => "stored",
            Self::Stored(_, Err(_)) => "not stored",
            Self::Answered(..) => "answered",
            Self::Fetched(..) => "fetched",
            Self::Boot(_) => "boot",
            Self::Put(_) => "member put",
            Self::Ask(_) => "asked",
            Self::Shutdown => "shutdown",
            Self::Time => "time",
        }
    }

    /// A line for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Frame(frame) => {
                format!("frame {}", frame.text.chars().take(400).collect::<String>())
            }
            Self::Pong(payload) => format!("ponged {payload:?}"),
            Self::Stored(token, result) => format!("stored {} {result:?}", token.0),
            Self::Answered(token, _) => format!("answered {}", token.0),
            Self::Fetched(token, result) => format!("fetched {} {result:?}", token.0),
            Self::Boot(row) => format!("boot {row:?}").chars().take(300).collect(),
            Self::Put(row) => format!("member put {row:?}"),
            Self::Ask(ask) => format!("asked {ask:?}"),
            Self::Opened
            | Self::Binary
            | Self::Ping
            | Self::Closed(_)
            | Self::Adopted(..)
            | Self::Shutdown
            | Self::Time => self.tag().to_owned(),
        }
    }
}

impl Cause {
    /// The input of the core that it is; none for the passing of time.
    pub(crate) fn input(&self, conn: Option<ConnId>) -> Option<Input<'_>> {
        let conn = conn.unwrap_or(ConnId {
            slot: u32::MAX,
            generation: 0,
        });
        Some(match self {
            Self::Opened => Input::Opened { conn },
            Self::Frame(frame) => Input::Frame {
                conn,
                text: &frame.text,
            },
            Self::Binary => Input::Undecodable { conn },
            Self::Ping => Input::Pinged { conn },
            Self::Pong(payload) => Input::Ponged { conn, payload },
            Self::Closed(how) => Input::Closed { conn, how: *how },
            Self::Adopted(hello, _) => Input::Adopted {
                conn,
                hello: hello.clone(),
            },
            Self::Stored(token, result) => Input::Stored {
                token: *token,
                result: *result,
            },
            Self::Answered(token, result) => Input::Answered {
                token: *token,
                result: result.clone(),
            },
            Self::Fetched(token, result) => Input::Fetched {
                token: *token,
                result: result.clone(),
            },
            Self::Boot(row) => Input::Boot(row.clone()),
            Self::Put(row) => Input::MemberPut(row.clone()),
            Self::Ask(ask) => Input::Ask {
                ticket: holdfast_core::ids::Ticket(0),
                ask: ask.clone(),
            },
            Self::Shutdown => Input::Shutdown,
            Self::Time => return None,
        })
    }
}
