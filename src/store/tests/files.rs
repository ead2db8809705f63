//! Files that are not ours, too new, locked or missing.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use rusqlite::ffi;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::*;
use crate::store::checkpoint::{self, Restart};
use crate::store::{BootError, Offline, OpenError, open, schema};

/// Says to a child process which database to use as a person's tool would.
const TOOL: &str = "HOLDFAST_TEST_TOOL";

fn error(path: &Path) -> OpenError {
    Store::open(path, Durability::Full).unwrap_err()
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("x.db")
}

#[test]
fn a_file_that_is_not_a_database_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    let text = "this is a letter to somebody\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(error(&path), OpenError::NotADatabase(_)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x)")
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = error(&path);
    assert!(matches!(error, OpenError::Foreign(_)));
    assert_eq!(error.to_string().lines().count(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// The version of a file that is up to date.
fn newest() -> i64 {
    i64::try_from(schema::MIGRATIONS.len()).unwrap()
}

#[test]
fn a_newer_version_is_named_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    Store::open(&path, Durability::Full).unwrap().close();
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = error(&path);
    let newest = newest();
    assert!(matches!(error, OpenError::Newer { found: 99, known, .. } if known == newest));
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

#[test]
fn two_stores_on_one_file_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    let first = Store::open(&path, Durability::Full).unwrap();
    assert!(matches!(error(&path), OpenError::Locked(_)));
    assert!(matches!(
        Offline::open(&path).unwrap_err(),
        OpenError::Locked(_)
    ));
    first.close();
    let offline = Offline::open(&path).unwrap();
    assert!(matches!(error(&path), OpenError::Locked(_)));
    drop(offline);
    Store::open(&path, Durability::Full).unwrap();
}

#[test]
fn a_missing_folder_is_one_clear_line() {
    let error = error(Path::new("/nonexistent/folder/x.db"));
    assert!(matches!(error, OpenError::Unwritable { .. }));
    assert_eq!(
        error.to_string(),
        "cannot write /nonexistent/folder/x.db: No such file or directory (os error 2)"
    );
}

#[test]
fn a_folder_in_place_of_the_file_is_refused() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(file(&folder)).unwrap();
    assert!(matches!(
        error(&file(&folder)),
        OpenError::Unwritable { .. }
    ));
}

#[test]
fn only_the_owner_may_read_the_files() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    for path in [world.path.clone(), wal(&world.path)] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn closing_empties_the_wal_and_opening_again_changes_nothing() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    world.store.close();
    assert!(!wal(&world.path).exists());
    let version = |pragma| {
        let conn = Connection::open(&world.path).unwrap();
        conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let schema = version("schema_version");
    Store::open(&world.path, Durability::Normal)
        .unwrap()
        .close();
    assert_eq!(version("schema_version"), schema);
    assert_eq!(version("user_version"), newest());
}

/// A crash in the middle of the very first migration leaves an empty database.
#[test]
fn an_empty_file_is_a_new_database() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    std::fs::write(&path, "").unwrap();
    Store::open(&path, Durability::Full)
        .unwrap()
        .admin()
        .mesh_create("a", None)
        .unwrap();
}

#[test]
fn a_wal_checkpointed_in_the_background_leaves_nothing_to_do() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    // Twelve ticks of quiet.
    std::thread::sleep(Duration::from_millis(1300));
    let (busy, frames, moved): (i64, i64, i64) = world
        .disk()
        .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!((busy, frames), (0, moved));
    assert!(frames > 0);
}

#[test]
fn a_reader_outside_holds_up_no_commit() {
    let world = World::new();
    let tool = world.disk();
    tool.execute_batch("BEGIN; SELECT * FROM mesh").unwrap();
    world.persist(world.insert(1, key(1)));
    let (done, is_done) = channel();
    let admin = world.store.admin();
    std::thread::spawn(move || {
        done.send(admin.call(|conn| Ok(checkpoint::restart(conn, Restart::KeepFile)?)))
            .unwrap();
    });
    let restarted = is_done.recv_timeout(Duration::from_secs(1)).unwrap();
    assert!(!restarted.unwrap());
    world.persist(world.insert(2, key(1)));
}

#[test]
#[ignore = "a child process of the test below"]
fn a_tool() {
    let Some(path) = std::env::var_os(TOOL) else {
        return;
    };
    // A new SQLite also asks for locks on the -shm before it removes a WAL. Older ones, such as
    // people's tools are made with, ask for this alone.
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let alone = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(alone, Err(Errno::AGAIN), "the store has lost its locks");
    let conn = Connection::open(path).unwrap();
    assert_eq!(count(&conn, "mesh"), 1);
    conn.close().unwrap();
}

fn use_tool_on(path: &Path) {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "store::tests::files::a_tool"])
        .env(TOOL, path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// It must not take itself for the last user of the database, which removes the WAL.
#[test]
fn a_tool_that_opens_and_closes_the_database_leaves_the_wal() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    let inode = || std::fs::metadata(wal(&world.path)).unwrap().ino();
    let before = inode();
    use_tool_on(&world.path);
    assert_eq!(inode(), before);
    world.persist(world.insert(2, key(1)));
    // Nor if somebody tried to open the same file a second time in this process.
    assert!(matches!(error(&world.path), OpenError::Locked(_)));
    use_tool_on(&world.path);
    assert_eq!(inode(), before);
    world.persist(world.insert(3, key(1)));
    let (_folder, copy) = crash_image(&world.path);
    let reopened = Store::open(&copy, Durability::Full).unwrap();
    assert_eq!(reopened.health().undelivered, 3);
}

#[test]
fn a_tool_leaves_the_wal_of_an_offline_command_too() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    drop(Offline::open(&path).unwrap());
    let offline = Offline::open(&path).unwrap();
    offline.admin().mesh_create("alpha", None).unwrap();
    use_tool_on(&path);
    assert!(wal(&path).exists());
    offline.admin().mesh_create("beta", None).unwrap();
    assert_eq!(offline.admin().mesh_list().unwrap().len(), 2);
}

#[test]
fn another_name_of_the_file_is_the_same_lock() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    let link = folder.path().join("link.db");
    symlink(&path, &link).unwrap();
    let first = Store::open(&link, Durability::Full).unwrap();
    assert!(matches!(error(&path), OpenError::Locked(_)));
    assert!(wal(&path).exists() && !wal(&link).exists());
    first.close();

    let hard = folder.path().join("hard.db");
    std::fs::hard_link(&path, &hard).unwrap();
    for name in [&path, &hard] {
        let error = error(name);
        assert!(matches!(error, OpenError::HardLinked(_)));
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    std::fs::remove_file(hard).unwrap();
    Store::open(&path, Durability::Full).unwrap();
}

#[test]
fn a_file_that_cannot_have_a_wal_is_refused() {
    let conn = Connection::open_in_memory().unwrap();
    let error = open::use_wal(&conn, Path::new("x.db")).unwrap_err();
    assert!(matches!(&error, OpenError::NoWal { mode, .. } if mode == "memory"));
    assert_eq!(
        error.to_string(),
        "x.db cannot have a write-ahead log (journal mode stays \"memory\"): use a local disk"
    );
}

#[test]
fn errors_of_sqlite_name_the_file_and_what_to_do() {
    let source = || sqlite_error(ffi::SQLITE_READONLY_DIRECTORY);
    let path = PathBuf::from("x.db");
    let open = OpenError::sqlite(&path)(source()).to_string();
    let boot = BootError::Sqlite {
        path,
        source: source(),
    };
    let boot = boot.to_string();
    assert!(open.starts_with("cannot open x.db: "), "{open}");
    assert!(boot.starts_with("cannot read x.db: "), "{boot}");
    for text in [open, boot] {
        assert!(
            text.ends_with(" (holdfast must be allowed to write the file and its folder)"),
            "{text}"
        );
    }
    let other = OpenError::sqlite(Path::new("x.db"))(sqlite_error(ffi::SQLITE_IOERR_READ));
    assert!(!other.to_string().contains("allowed"), "{other}");
}

#[test]
fn the_length_of_the_wal_is_known() {
    let world = World::new();
    world.persist(world.insert(1, key(1)));
    let long = || std::fs::metadata(wal(&world.path)).unwrap().len();
    wait_for(|| world.health().wal_bytes == long() && long() > 0);
}
