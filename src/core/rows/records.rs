//! What a mesh keeps on disk only: memories, contexts, tasks, skills, API keys, vaults, webhooks,
//! and its audit log. The core checks and bounds what is asked and makes ids and times; the store
//! carries it out.

use super::kept::{
    ApiKey, AuditPage, Chain, Context, Memory, Revoked, Skill, Tally, Task, TaskStatus, VaultEntry,
    Webhook,
};
use super::topics::TopicMessage;
use crate::ids::Seq;
use crate::time::Wall;

/// One thing asked of what a mesh keeps on disk only. Answered in the order of everything given to
/// the store, and what it writes is durable when it is answered.
#[derive(Clone, Debug)]
pub struct RecordQuery {
    /// Whose.
    pub mesh_id: String,
    /// What.
    pub ask: RecordAsk,
}

/// See [`RecordQuery`]. What adds a record is refused with [`RecordAnswer::Full`] where the mesh
/// has as many as it may have.
#[derive(Clone, Debug)]
pub enum RecordAsk {
    /// Keep a memory: [`RecordAnswer::Written`].
    Remember(Memory),
    /// Memories that have all of these words, the most fitting first: [`RecordAnswer::Memories`].
    Recall {
        /// Letters and digits only; at least one.
        words: Vec<String>,
        /// Most rows.
        limit: u32,
    },
    /// Delete a memory: [`RecordAnswer::Written`] or [`RecordAnswer::Missing`].
    Forget {
        /// Which.
        id: String,
    },
    /// Put a member's context in the place of its last one: [`RecordAnswer::Kept`].
    ShareContext(Context),
    /// Contexts, the latest first: [`RecordAnswer::Contexts`].
    FindContexts {
        /// Only those with this in their summary or as one of their tags.
        text: Option<String>,
        /// Most rows.
        limit: u32,
    },
    /// Keep a new task: [`RecordAnswer::Written`].
    CreateTask(Task),
    /// Claim a task that is open: all tasks, as with [`RecordAsk::ListTasks`], or
    /// [`RecordAnswer::Missing`].
    ClaimTask {
        /// Which.
        id: String,
        /// Name of who claims it.
        by: String,
        /// The presence of who claims it.
        presence_id: String,
        /// When.
        at: Wall,
        /// Most rows.
        limit: u32,
    },
    /// Call a task done: as [`RecordAsk::ClaimTask`].
    CompleteTask {
        /// Which.
        id: String,
        /// What came of it.
        result: Option<String>,
        /// When.
        at: Wall,
        /// Most rows.
        limit: u32,
    },
    /// Tasks, the latest first: [`RecordAnswer::Tasks`].
    ListTasks {
        /// Only such.
        status: Option<TaskStatus>,
        /// Only those of them.
        assignee: Option<String>,
        /// Most rows.
        limit: u32,
    },
    /// How much there is: [`RecordAnswer::Tally`].
    Tally,
    /// Keep a skill, or replace that of its name: [`RecordAnswer::Written`].
    ShareSkill(Skill),
    /// A skill by name, one or none: [`RecordAnswer::Skills`].
    GetSkill {
        /// Which.
        name: String,
    },
    /// Skills by name, without their instructions: [`RecordAnswer::Skills`].
    ListSkills {
        /// Only those with this in their name or description, or as one of their tags.
        text: Option<String>,
        /// Most rows.
        limit: u32,
    },
    /// Delete a skill: [`RecordAnswer::Written`] or [`RecordAnswer::Missing`].
    RemoveSkill {
        /// Which.
        name: String,
    },
    /// Keep an API key: [`RecordAnswer::Written`].
    CreateApiKey(ApiKey),
    /// API keys, the latest first: [`RecordAnswer::ApiKeys`].
    ListApiKeys {
        /// Most rows.
        limit: u32,
    },
    /// Revoke an API key: [`RecordAnswer::Revoked`].
    RevokeApiKey {
        /// Its id, or how that of one key not revoked begins, or its secret.
        id: String,
        /// When.
        at: Wall,
    },
    /// Keep an entry of a vault, or replace that of its key: [`RecordAnswer::Written`].
    VaultSet(VaultEntry),
    /// A member's entries without their secrets, by key: [`RecordAnswer::Vault`].
    VaultList {
        /// Whose.
        member_id: String,
        /// Most rows.
        limit: u32,
    },
    /// A member's entries with those keys: [`RecordAnswer::Vault`].
    VaultGet {
        /// Whose.
        member_id: String,
        /// Which.
        keys: Vec<String>,
    },
    /// Delete an entry: [`RecordAnswer::Written`] or [`RecordAnswer::Missing`].
    VaultDelete {
        /// Whose.
        member_id: String,
        /// Which.
        key: String,
    },
    /// Keep a webhook: [`RecordAnswer::Written`] or [`RecordAnswer::Taken`].
    CreateWebhook(Webhook),
    /// Active webhooks, the earliest first: [`RecordAnswer::Webhooks`].
    ListWebhooks {
        /// Most rows.
        limit: u32,
    },
    /// The active webhook with that secret, one or none: [`RecordAnswer::Webhooks`].
    FindWebhook {
        /// Part of its address.
        secret: String,
    },
    /// Deactivate a webhook: [`RecordAnswer::Written`] or [`RecordAnswer::Missing`]. Its name
    /// stays taken.
    DeleteWebhook {
        /// Which.
        name: String,
    },
    /// What was said in a topic of the mesh, the latest first: [`RecordAnswer::TopicMessages`].
    TopicHistory {
        /// Which.
        topic_id: String,
        /// Only what was said before.
        before: Option<Seq>,
        /// Most rows.
        limit: u32,
    },
    /// Audit entries, the latest first: [`RecordAnswer::Audit`].
    AuditPage {
        /// Only such.
        event_type: Option<String>,
        /// Most rows.
        limit: u32,
        /// How many to pass over.
        offset: u64,
    },
    /// Whether the audit log is what was written: [`RecordAnswer::Chain`].
    AuditVerify,
}

impl RecordAsk {
    /// Whether it changes nothing.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        match self {
            Self::Recall { .. }
            | Self::FindContexts { .. }
            | Self::ListTasks { .. }
            | Self::Tally
            | Self::GetSkill { .. }
            | Self::ListSkills { .. }
            | Self::ListApiKeys { .. }
            | Self::VaultList { .. }
            | Self::VaultGet { .. }
            | Self::ListWebhooks { .. }
            | Self::FindWebhook { .. }
            | Self::TopicHistory { .. }
            | Self::AuditPage { .. }
            | Self::AuditVerify => true,
            Self::Remember(_)
            | Self::Forget { .. }
            | Self::ShareContext(_)
            | Self::CreateTask(_)
            | Self::ClaimTask { .. }
            | Self::CompleteTask { .. }
            | Self::ShareSkill(_)
            | Self::RemoveSkill { .. }
            | Self::CreateApiKey(_)
            | Self::RevokeApiKey { .. }
            | Self::VaultSet(_)
            | Self::VaultDelete { .. }
            | Self::CreateWebhook(_)
            | Self::DeleteWebhook { .. } => false,
        }
    }

    /// Bytes of the longest text it brings along, about as many as it holds in memory.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Remember(memory) => memory.content.len(),
            Self::ShareContext(context) => {
                let lists = [&context.files_read, &context.key_findings, &context.tags];
                let items = lists.into_iter().flatten().map(String::len);
                context.summary.len() + items.sum::<usize>()
            }
            Self::CreateTask(task) => task.title.len(),
            Self::CompleteTask { result, .. } => result.as_ref().map_or(0, String::len),
            Self::ShareSkill(skill) => {
                skill.instructions.len() + skill.manifest.as_ref().map_or(0, String::len)
            }
            Self::VaultSet(entry) => entry.ciphertext.len(),
            Self::VaultGet { keys: texts, .. } | Self::Recall { words: texts, .. } => {
                texts.iter().map(String::len).sum()
            }
            Self::FindContexts { text, .. } | Self::ListSkills { text, .. } => {
                text.as_ref().map_or(0, String::len)
            }
            Self::Forget { .. }
            | Self::ClaimTask { .. }
            | Self::ListTasks { .. }
            | Self::Tally
            | Self::GetSkill { .. }
            | Self::RemoveSkill { .. }
            | Self::CreateApiKey(_)
            | Self::ListApiKeys { .. }
            | Self::RevokeApiKey { .. }
            | Self::VaultList { .. }
            | Self::VaultDelete { .. }
            | Self::CreateWebhook(_)
            | Self::ListWebhooks { .. }
            | Self::FindWebhook { .. }
            | Self::DeleteWebhook { .. }
            | Self::TopicHistory { .. }
            | Self::AuditPage { .. }
            | Self::AuditVerify => 0,
        }
    }
}

/// The answer to a [`RecordAsk`].
#[derive(Clone, Debug)]
pub enum RecordAnswer {
    /// Done, and durable.
    Written,
    /// Done, and durable; the row that was there before has this id.
    Kept(String),
    /// What it names is not there, or not in that state.
    Missing,
    /// The name is taken.
    Taken,
    /// The mesh has as many as it may have.
    Full,
    /// Rows.
    Memories(Vec<Memory>),
    /// Rows.
    Contexts(Vec<Context>),
    /// Rows.
    Tasks(Vec<Task>),
    /// Numbers.
    Tally(Tally),
    /// Rows.
    Skills(Vec<Skill>),
    /// Rows.
    ApiKeys(Vec<ApiKey>),
    /// What became of a key to be revoked.
    Revoked(Revoked),
    /// Rows.
    Vault(Vec<VaultEntry>),
    /// Rows.
    Webhooks(Vec<Webhook>),
    /// Rows: as many as were asked for, or as fit into an answer and one more.
    TopicMessages(Vec<TopicMessage>),
    /// A page of the audit log.
    Audit(AuditPage),
    /// The audit log as a whole.
    Chain(Chain),
}
