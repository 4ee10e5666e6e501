//! Lint of the snapshot.

use super::*;

#[test]
fn a_snapshot_without_an_effect() {
    let memory = |keys: &str| format!("{LIST}[memory]\n{keys}\n");
    let hint = "add snapshot = ";
    one(&memory("snapshot_size = \"1MiB\""), "\"1MiB\"", "no effect without `snapshot`", hint);
    one(&memory("snapshot_time = \"1s\""), "\"1s\"", "no effect without `snapshot`", hint);
    silent(&memory("snapshot = \"/tmp/snapshot\"\nsnapshot_size = \"1MiB\""));
    let redis = "[redis]\nurl = \"redis://127.0.0.1:1\"\nsecret = \"0123456789abcdef\"\n";
    let off = "size = \"0\"\nsnapshot = \"/tmp/snapshot\"";
    one(
        &format!("{redis}{}", memory(off)),
        "\"/tmp/snapshot\"",
        "the memory tier is off",
        "a size",
    );
}

#[test]
fn a_snapshot_in_a_folder_that_nobody_can_write_to() {
    let memory = |path: &str| format!("{LIST}[memory]\nsnapshot = \"{path}\"\n");
    let hint = "create the folder";
    one(&memory("/nonexistent/a"), "\"/nonexistent/a\"", "a folder that does not exist", hint);
    one(&memory("/tmp"), "\"/tmp\"", "is a folder", hint);
    one(&memory("/dev/stdin"), "\"/dev/stdin\"", "is a link", hint);
    silent(&memory("/tmp/snapshot"));
    let path = "/proc/self/snapshot";
    one(&memory(path), &format!("\"{path}\""), "cannot write to the folder", "STATE_DIRECTORY");
}
