//! What the rules of one app have to do with the hosts of another one.

use http::Method;

use super::*;
use crate::policy::tag::Tag;

#[test]
fn r1272_a_move_purges_what_another_app_stores_under_its_own_name() {
    let rules = rules(
        "[[apps]]\nname = \"shop\"\nhosts = [\"shop.test\"]\nurl = \"http://127.0.0.1:2\"\n\
         host_key = \"one.test\"\n",
    );
    let sent = SentRequest::new("MOVE", "/a").with("destination", "http://shop.test/b");
    let method = Method::from_bytes(b"MOVE").expect("a method");
    let purged = rules.mutation(&sent.view(), &method, None).expect("nothing is ambiguous");
    assert!(purged.tags.contains(&Tag::new("uri:one.test/b")), "{:?}", purged.tags);
}
