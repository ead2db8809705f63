//! Databases on which no broker may start: one line says why, the exit code is 1, and the file is
//! left as it was. Damaged ones may be served as far as they can be read, and never end in a panic.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::cage::Cage;
use super::skip;
use super::support::broker::BIN;

/// How long a broker may take to refuse, or to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What [`serve`] says of a broker that did start.
const CAME_UP: &str = "it came up";

/// Nobody, in the sense of file permissions.
const NOBODY: &str = "65534";

/// Starts a broker on a database; if it ends, its exit code and what it said.
pub(crate) fn serve(command: &[String], db: &Path) -> String {
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .args(["serve", "--listen", "127.0.0.1:0", "--db"])
        .arg(db)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the broker must start");
    let mut stdout = child.stdout.take().expect("stdout must be a pipe");
    let (tell, told) = std::sync::mpsc::channel();
    // The first line of a broker that serves, or the end of one that does not.
    std::thread::spawn(move || {
        let mut first = [0; 8];
        let serves = stdout.read_exact(&mut first).is_ok();
        let _nobody_waits = tell.send(serves);
    });
    if told.recv_timeout(PATIENCE).expect("it must serve or end") {
        child.kill().expect("it must be killable");
        child.wait().expect("it must be waitable");
        return CAME_UP.to_owned();
    }
    let out = child.wait_with_output().expect("it must be waitable");
    let said = String::from_utf8_lossy(&out.stderr).trim_end().to_owned();
    format!("{} {said}", out.status.code().unwrap_or(-1))
}

/// [`serve`] through a wrapper.
pub(crate) fn serve_in(wrapper: &[String], db: &Path) -> String {
    let command: Vec<String> = wrapper.iter().cloned().chain([BIN.to_owned()]).collect();
    serve(&command, db)
}

/// One line, exit 1, that names the file and says `why`.
fn assert_refused(told: &str, db: &Path, why: &str) {
    let line = told.strip_prefix("1 ").unwrap_or_else(|| panic!("{told}"));
    assert!(!line.contains('\n'), "one line, not {line:?}");
    assert!(line.contains(why), "{line:?} does not say {why:?}");
    let name = db.display().to_string();
    if std::env::var("LOOSE").is_err() {
        assert!(line.contains(&name), "{line:?} does not name {name}");
    }
}

/// A folder with a database in which something has happened.
fn used() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("the temporary folder must be writable");
    let db = folder.path().join("holdfast.db");
    let admin = |args: &[&str]| {
        let done = Command::new(BIN)
            .args(args)
            .env("HOLDFAST_DB", &db)
            .output();
        assert!(done.expect("it must start").status.success(), "{args:?}");
    };
    admin(&["mesh", "create", "team"]);
    for name in ["alice", "bob", "carol"] {
        admin(&["member", "add", "team", "--name", name]);
    }
    (folder, db)
}

/// The broker refuses and leaves the file as it was.
fn assert_left_alone(db: &Path, why: &str) {
    let before = fs::read(db).expect("the file must be readable");
    assert_refused(&serve_in(&[], db), db, why);
    let after = fs::read(db).expect("the file must be readable");
    assert!(before == after, "{} was changed", db.display());
}

#[test]
fn newer_version() {
    let (_folder, db) = used();
    let conn = Connection::open(&db).expect("it must open");
    conn.pragma_update(None, "user_version", 99)
        .expect("it must be writable");
    conn.close().expect("it must close");
    assert_left_alone(&db, "has schema version 99");
}

#[test]
fn foreign_files() {
    let folder = tempfile::tempdir().expect("the temporary folder must be writable");
    let db = folder.path().join("diary.db");
    let conn = Connection::open(&db).expect("it must open");
    conn.execute_batch("CREATE TABLE diary (day TEXT)")
        .expect("it must be writable");
    conn.close().expect("it must close");
    assert_left_alone(&db, "another program");
    let text = folder.path().join("diary.txt");
    fs::write(&text, "Dear diary, ".repeat(1000)).expect("it must be writable");
    assert_left_alone(&text, "not a database");
    let inner = folder.path().join("folder");
    fs::create_dir(&inner).expect("it must be writable");
    assert_refused(&serve_in(&[], &inner), &inner, "");
    let nowhere = folder.path().join("nowhere/holdfast.db");
    assert_refused(&serve_in(&[], &nowhere), &nowhere, "");
}

#[test]
fn truncated_files() {
    for thousandths in [1, 250, 500, 900] {
        let (_folder, db) = used();
        let length = fs::metadata(&db).expect("it must be there").len() * thousandths / 1000;
        let file = fs::File::options().write(true).open(&db);
        file.and_then(|file| file.set_len(length))
            .expect("it must be cuttable");
        let told = serve_in(&[], &db);
        println!("  {length} bytes left: {told}");
        assert_refused(&told, &db, "");
    }
}

#[test]
fn damaged_pages() {
    let (folder, db) = used();
    let sound = fs::read(&db).expect("it must be readable");
    let copy = folder.path().join("damaged.db");
    let (mut came_up, mut refused) = (0, 0);
    for page in 0..sound.len() / 4096 {
        for suffix in ["-wal", "-shm", ".lock", ".sock"] {
            let _may_not_exist = fs::remove_file(super::database::with_suffix(&copy, suffix));
        }
        fs::write(&copy, &sound).expect("it must be writable");
        let mut file = fs::File::options()
            .write(true)
            .open(&copy)
            .expect("it must open");
        file.seek(SeekFrom::Start(page as u64 * 4096))
            .and_then(|_| file.write_all(&[0xa5; 4096]))
            .expect("it must be writable");
        let told = serve_in(&[], &copy);
        if told == CAME_UP {
            came_up += 1;
        } else {
            refused += 1;
            assert_refused(&told, &copy, "");
        }
    }
    println!("  {refused} damaged pages noticed at start, {came_up} not");
    assert!(refused > 0, "no damage was noticed");
}

#[test]
fn read_only_file_system() {
    let Some(cage) = Cage::new(16) else {
        return skip(
            "read_only_file_system",
            "no file system can be mounted here",
        );
    };
    let db = cage.path().join("holdfast.db");
    assert_eq!(serve_in(&cage.wrapper(), &db), CAME_UP);
    cage.run("mount -o remount,bind,ro .");
    assert_refused(&serve_in(&cage.wrapper(), &db), &db, "ead-only");
    cage.run("mount -o remount,bind,rw .");
    assert_eq!(serve_in(&cage.wrapper(), &db), CAME_UP);
}

#[test]
fn forbidden_files() {
    let (folder, db) = used();
    // Permissions bind nobody's processes, and ours unless we are root.
    let program = folder.path().join("holdfast");
    fs::copy(BIN, &program).expect("the binary must be copyable");
    let mut command = vec![program.display().to_string()];
    if rustix::process::geteuid().is_root() {
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let setpriv = ["setpriv".to_owned(), "--clear-groups".to_owned()];
        command.splice(0..0, setpriv.into_iter().chain(ids));
    }
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it must be ours");
    };
    let lock = super::database::with_suffix(&db, ".lock");
    // A file that may be read only, in a folder that may be written.
    mode(folder.path(), 0o777);
    mode(&lock, 0o666);
    mode(&db, 0o444);
    assert_refused(&serve(&command, &db), &db, "annot write");
    // A file that may be written, in a folder that may not: SQLite could keep no log.
    mode(&db, 0o666);
    mode(folder.path(), 0o555);
    let told = serve(&command, &db);
    println!("  folder not writable: {told}");
    assert_refused(&told, &db, "");
    // Neither read nor write.
    mode(&db, 0o000);
    assert_refused(&serve(&command, &db), &db, "annot write");
    mode(folder.path(), 0o777);
}

#[test]
fn in_use() {
    let (_folder, db) = used();
    let conn = Connection::open(&db).expect("it must open");
    conn.execute_batch("BEGIN EXCLUSIVE")
        .expect("it must be lockable");
    let told = serve_in(&[], &db);
    println!("  locked by a tool: {told}");
    assert_refused(&told, &db, "");
    conn.execute_batch("ROLLBACK").expect("it must end");
    assert_eq!(serve_in(&[], &db), CAME_UP);
}
