//! `[[notify]]` in the file: what is wrong with it is pointed at.

use crate::support::CommandLine;

#[tokio::test]
async fn check_says_what_a_notification_needs() {
    let head = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[[notify]]\n";
    let token = "token = \"hunter2-hunter2-hunter2\"";
    for (lines, expected) in [
        ("", "`kind` is missing"),
        ("kind = \"cloudfare\"", "did you mean \"cloudflare\"?"),
        (&*format!("kind = \"cloudflare\"\n{token}"), "`zone` is missing"),
        ("kind = \"cloudflare\"\nzone = \"z\"", "`token` is missing"),
        (&*format!("kind = \"cloudflare\"\nzone = \"a/b\"\n{token}"), "is not an id"),
        ("kind = \"cloudflare\"\nzone = \"z\"\ntoken = \"tiny\"", "shorter than 16"),
        (&*format!("kind = \"fastly\"\n{token}"), "`service` is missing"),
        (&*format!("kind = \"fastly\"\nzone = \"z\"\n{token}"), "`zone` says nothing"),
        ("kind = \"webhook\"\nurl = \"http://h\"", "`secret` is missing"),
        ("kind = \"webhook\"\nsecret = \"whsec_hunter2hunter2hunter2\"", "`url` is missing"),
        (
            "kind = \"webhook\"\nurl = \"http://h\"\nsecret = \"whsec_hunter2%%%%%%%%%\"",
            "no secret of Standard Webhooks",
        ),
        ("kind = \"webhook\"\nurl = \"ftp://h\"", "neither http nor https"),
        ("kind = \"webhook\"\nurl = \"http://u:hunter2@h\"", "has a user or password"),
        ("kind = \"webhook\"\nurl = \"http://h\"\nsoft = true", "`soft` says nothing"),
        ("kind = \"webhook\"\nurl = \"http://h\"\nheader = \"a b\"", "not a valid header name"),
        ("kind = \"webhook\"\nurl = \"http://h\"\ngather = \"1m\"", "too large"),
        ("kind = \"webhook\"\nurl = \"http://h\"\nheader_size = \"1MiB\"", "too large"),
        ("kind = \"webhook\"\nname = \"a b\"", "not a name of a notification"),
        ("kind = \"webhook\"\nurls = \"x\"", "did you mean `url`?"),
    ] {
        let file = CommandLine::new().file("proxy.toml", &format!("{head}{lines}\n"));
        let said = file.run(&["check", "--offline"]).await;
        let text = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, 64, "{lines}: {text}");
        assert!(text.contains(expected) && !text.contains("hunter2"), "{lines}: {text}");
    }
    let far = format!(
        "{head}kind = \"fastly\"\nservice = \"s\"\nurl = \"http://cdn.example.com\"\n{token}\n"
    );
    let said = CommandLine::new().file("proxy.toml", &far).run(&["check", "--offline"]).await;
    assert!(said.out.contains("the token may be read on the way"), "{}", said.out);
    assert!(said.out.contains("1 notification") && said.code == 0, "{}", said.out);
}
