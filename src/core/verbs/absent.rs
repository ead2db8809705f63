//! What this broker does not have: an object store, data back-ends, managed services (protocol.md
//! §20). Each request is answered at once, with what is true here: an empty list where one is asked
//! for, else an error of its family. A client that gets no answer waits for its timeout.

use serde::Serialize;

use crate::limits::RECORD_TEXT_BYTES_MAX;
use crate::shard::{Shard, Turn};
use crate::verbs::Request;
use crate::wire::FieldError;

/// How a request is answered.
#[derive(Clone, Copy)]
enum Answer {
    /// A list of that name, which is empty, in a frame of that type.
    Nothing(&'static str, &'static str),
    /// An error of that code.
    Refused(&'static str, &'static str),
}

const NO_FILE: Answer = Answer::Refused("not_found", "file not found");
const NO_SQL: &str = "there is no SQL database here";
const NO_VECTORS: Answer = Answer::Refused("vector_error", "there is no vector store here");
const NO_GRAPH: Answer = Answer::Refused("graph_error", "there is no graph database here");
const NO_SERVICES: &str = "there are no managed services here";

/// The fields that a request must have, and its answer; None if it is none of these.
fn answer(kind: &str) -> Option<(&'static [&'static str], Answer)> {
    let answer: (&[&str], Answer) = match kind {
        "get_file" | "file_status" | "delete_file" => (&["fileId"], NO_FILE),
        "list_files" => (&[], Answer::Nothing("file_list", "files")),
        "grant_file_access" => (&["fileId", "peerPubkey", "sealedKey"], NO_FILE),
        "mesh_query" => (&["sql"], Answer::Refused("query_error", NO_SQL)),
        "mesh_execute" => (&["sql"], Answer::Refused("execute_error", NO_SQL)),
        "mesh_schema" => (&[], Answer::Nothing("mesh_schema_result", "tables")),
        "vector_store" => (&["collection", "text"], NO_VECTORS),
        "vector_search" => {
            let nothing = Answer::Nothing("vector_results", "results");
            (&["collection", "query"], nothing)
        }
        "vector_delete" => (&["collection", "id"], NO_VECTORS),
        "list_collections" => (&[], Answer::Nothing("collection_list", "collections")),
        "graph_query" | "graph_execute" => (&["cypher"], NO_GRAPH),
        "mcp_deploy" | "mcp_update" => (
            &["server_name"],
            Answer::Refused("deploy_error", NO_SERVICES),
        ),
        "mcp_undeploy" => {
            let refused = Answer::Refused("undeploy_error", NO_SERVICES);
            (&["server_name"], refused)
        }
        "mcp_logs" => (&["server_name"], Answer::Refused("not_found", NO_SERVICES)),
        "mcp_scope" => (
            &["server_name"],
            Answer::Refused("scope_error", NO_SERVICES),
        ),
        "mcp_schema" => (
            &["server_name"],
            Answer::Refused("schema_error", NO_SERVICES),
        ),
        "skill_deploy" => (&[], Answer::Refused("deploy_error", NO_SERVICES)),
        _ => return None,
    };
    Some(answer)
}

impl Shard {
    /// Answers a request for something that is not here; None if it is for something else.
    pub(crate) fn absent_request(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
        kind: &str,
    ) -> Option<Result<(), FieldError>> {
        let (required, answer) = answer(kind)?;
        for field in required {
            if let Err(error) = request.fields.str(field, RECORD_TEXT_BYTES_MAX) {
                return Some(Err(error));
            }
        }
        match answer {
            Answer::Nothing(kind, list) => self.answer(t, request, kind, Nothing(list)),
            Answer::Refused(code, message) => self.error(t, request, code, message),
        }
        Some(Ok(()))
    }
}

/// An empty list under its name.
struct Nothing(&'static str);

impl Serialize for Nothing {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0, [(); 0])])
    }
}
