//! Lint of the switch for all routes.

use super::*;

const OFF: &str = "mode = \"off\"";
/// Two routes, the second one at the end of the file.
const ROUTES: &str = "[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/b\"\n";

#[test]
fn a_mode_that_was_appended_to_the_file() {
    for end in ["", "\n", "\n\n# in a hurry\n  \n"] {
        one(&format!("{ROUTES}{OFF}{end}"), OFF, "other routes still cache", "at the top");
    }
    one(&format!("{ROUTES}mode='off'"), "mode='off'", "other routes still cache", "at the top");
    silent(&format!("{ROUTES}mode = \"shadow\"\n"));
    silent(&format!("{ROUTES}{OFF}   # check: ok\n"));
    silent(&with(ROUTES, "path = \"/b\"", "mode = \"off\"\npath = \"/b\""));
    silent(&with(&format!("{ROUTES}{OFF}"), "path = \"/a\"", "path = \"/a\"\nmode = \"off\""));
}

#[test]
fn a_mode_that_the_last_section_does_not_know() {
    let purge = "[[purges]]\npath = \"/a\"\ntags = [\"a\"]\n";
    for (section, what) in [
        (purge, "a purge rule has no key `mode`"),
        ("[memory]\nsize = \"1MiB\"\n", "[memory] has no key `mode`"),
        ("[fields]\nx = { header = \"x-x\" }\n", "this is a string, but a table is needed"),
    ] {
        let text = format!("{HEAD}{ROUTES}{section}{OFF}\n");
        let said = Config::parse(&text, "proxy.toml", &|_| None).expect_err(section).to_string();
        assert!(said.contains(what), "{said}");
        assert!(said.contains("put `mode` at the top of the file"), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
    }
}
