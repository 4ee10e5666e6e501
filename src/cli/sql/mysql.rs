//! The triggers by which a table of MySQL or MariaDB writes its changes to another table.
//!
//! Invariants:
//! - Each row that a statement changes is one row that is told. What was told before in the same
//!   transaction is not left out: a variable that knew it would outlive a rollback.
//! - SECURITY: what a row holds never adds a tag: it stands in a JSON object, which the source
//!   fills into the templates, and names and texts are quoted, whatever `sql_mode` says.
//! - No value makes the statement of the app fail: what is no text, or too long, is told as null,
//!   which purges the family. So nothing that is told is longer than its column.
//! - A trigger is one statement, so that the SQL needs no `DELIMITER`.

use std::fmt::Write as _;

use super::tags::{ColumnTag, MAX_NAME, SqlTable, TagPart};

/// The longest value of a column that is told, in characters. Longer ones purge the family.
const MAX_VALUE: usize = 255;

/// How many columns the tags may have: their values in JSON, before and after, fit into a TEXT.
pub(super) const MAX_COLUMNS: usize = 16;

/// The longest text of all tags together, in bytes.
pub(super) const MAX_TAGS_TEXT: usize = 8_000;

/// The triggers, each with the rows that it sees.
const TRIGGERS: [(&str, &[&str]); 3] =
    [("insert", &["NEW"]), ("update", &["OLD", "NEW"]), ("delete", &["OLD"])];

/// The SQL that makes a table write its changes, or why there is none.
pub(super) fn triggers(
    table: &SqlTable,
    tags: &[ColumnTag],
    changes: &SqlTable,
) -> Result<String, String> {
    let texts: Vec<&str> = tags.iter().map(|tag| tag.text.as_str()).collect();
    let (templates, columns) = (texts.join(" "), columns(tags));
    if columns.len() > MAX_COLUMNS || templates.len() > MAX_TAGS_TEXT {
        return Err(format!(
            "the tags have {} columns and {} bytes: at most {MAX_COLUMNS} columns and \
             {MAX_TAGS_TEXT} bytes can be told of a row",
            columns.len(),
            templates.len()
        ));
    }
    let (name, changes_name) = (table_name(table), table_name(changes));
    let templates = literal(&templates);
    let mut sql = format!(
        "-- Makes {name} tell of its changes, for a source of sidecache. Run it as a user with the \
         rights\n-- CREATE and INSERT on {changes_name} and TRIGGER on {name}: the triggers run \
         with its rights.\n-- It may be run again. `sidecache sql mysql --table … --drop` prints \
         what removes it.\n-- The user of the source needs no more than this:\n--   GRANT SELECT, \
         DELETE ON {changes_name} TO …;\n\nCREATE TABLE IF NOT EXISTS {changes_name} (\n  `id` \
         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,\n  `payload` TEXT CHARACTER SET \
         utf8mb4 COLLATE utf8mb4_bin NOT NULL,\n  `told_at` TIMESTAMP(6) NOT NULL DEFAULT \
         CURRENT_TIMESTAMP(6)\n) ENGINE = InnoDB;\n\n"
    );
    for (operation, rows) in TRIGGERS {
        let trigger = trigger_name(table, operation);
        let objects: Vec<String> = rows.iter().map(|row| object(&columns, row)).collect();
        let payload = if columns.is_empty() {
            templates.clone()
        } else {
            let newline = ",\n    CHAR(10 USING utf8mb4), ";
            format!(
                "COALESCE(CONCAT(\n    {templates}{newline}{}\n  ), {templates})",
                objects.join(newline)
            )
        };
        let _ = write!(
            sql,
            "DROP TRIGGER IF EXISTS {trigger};\nCREATE TRIGGER {trigger} AFTER {} ON {name}\n  FOR \
             EACH ROW INSERT INTO {changes_name} (`payload`) VALUES ({payload});\n\n",
            operation.to_uppercase()
        );
    }
    let _ = write!(
        sql,
        "-- What has changed before, and while the triggers were made, is told as a whole.\nINSERT \
         INTO {changes_name} (`payload`) VALUES ({templates});"
    );
    Ok(sql)
}

/// The SQL that removes the triggers again.
pub(super) fn removal(table: &SqlTable, changes: &SqlTable) -> String {
    let mut sql = String::new();
    for (operation, _) in TRIGGERS {
        let _ = writeln!(sql, "DROP TRIGGER IF EXISTS {};", trigger_name(table, operation));
    }
    let _ = write!(
        sql,
        "-- If no other table tells of its changes: DROP TABLE IF EXISTS {};",
        table_name(changes)
    );
    sql
}

/// The columns of the tags, each once.
fn columns(tags: &[ColumnTag]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for part in tags.iter().flat_map(|tag| &tag.parts) {
        if let TagPart::Column(name, _) = part
            && !columns.contains(&name.as_str())
        {
            columns.push(name);
        }
    }
    columns
}

/// A row as a JSON object of texts.
fn object(columns: &[&str], row: &str) -> String {
    let members: Vec<String> = columns
        .iter()
        .map(|name| format!("{}, {}", literal(name), value(&format!("{row}.{}", identifier(name)))))
        .collect();
    format!("JSON_OBJECT(\n      {}\n    )", members.join(",\n      "))
}

/// A value as a text; null where it has none. Bytes are a text where all are ASCII, as those of
/// numbers and dates are: others would make the statement fail, or be taken for other texts.
fn value(column: &str) -> String {
    let ascii = format!("CONVERT(CONVERT({column} USING latin1) USING utf8mb4)");
    format!(
        "NULLIF(CASE WHEN CHAR_LENGTH({column}) > {MAX_VALUE} THEN NULL\n        WHEN \
         CHARSET({column}) <> 'binary' THEN CONVERT({column} USING utf8mb4)\n        WHEN \
         LENGTH({ascii}) = LENGTH({column})\n        THEN {ascii} END, '')"
    )
}

fn table_name(table: &SqlTable) -> String {
    qualified(&table.schema, &table.name)
}

/// The name of a trigger: one of its schema, so it has the table's name, and is as long as names
/// may be.
fn trigger_name(table: &SqlTable, operation: &str) -> String {
    let mut name = format!("sidecache_{}_{operation}", table.name);
    if name.len() > MAX_NAME {
        let digest = <sha2::Sha256 as sha2::Digest>::digest(table.name.as_bytes());
        name = format!("sidecache_{}_{operation}", crate::units::hex(&digest[..16]));
    }
    qualified(&table.schema, &name)
}

/// A name in its schema; in that of the connection where none was written.
fn qualified(schema: &str, name: &str) -> String {
    if schema.is_empty() {
        identifier(name)
    } else {
        format!("{}.{}", identifier(schema), identifier(name))
    }
}

/// A quoted name.
fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A quoted text. Where a backslash is in it, it is written by its bytes, since `sql_mode` says
/// what a backslash means.
fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("_utf8mb4 X'{}'", crate::units::hex(text.as_bytes()))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> SqlTable {
        SqlTable::parse(name, "").expect("a table")
    }

    #[test]
    fn names_and_texts_are_quoted() {
        let tags = ["o'r:{a`b}", "c\\d"].map(|tag| ColumnTag::parse(tag).expect("a tag"));
        let sql = triggers(&table("s.t`x"), &tags, &table("s.changes")).expect("it fits");
        for part in [
            "ON `s`.`t``x`",
            "CREATE TRIGGER `s`.`sidecache_t``x_update`",
            "INSERT INTO `s`.`changes` (`payload`)",
            "CHARSET(OLD.`a``b`)",
            "JSON_OBJECT(\n      'a`b',",
            "_utf8mb4 X'6f27723a7b6160627d20635c64'",
        ] {
            assert!(sql.contains(part), "{part}\n{sql}");
        }
    }

    #[test]
    fn a_long_name_has_triggers_with_names_that_fit() {
        let long = table(&"t".repeat(63));
        let names = TRIGGERS.map(|(operation, _)| trigger_name(&long, operation));
        assert!(names.iter().all(|name| name.len() <= MAX_NAME + 2), "{names:?}");
        assert_ne!(names[0], trigger_name(&table(&"t".repeat(62)), "insert"));
        let sql = triggers(&long, &[], &table("c")).expect("it fits");
        let removal = removal(&long, &table("c"));
        assert!(names.iter().all(|name| sql.contains(name) && removal.contains(name)));
    }

    #[test]
    fn more_than_a_row_can_tell_is_refused() {
        let tag = |at| ColumnTag::parse(&format!("t:{{c{at}}}")).expect("a tag");
        let many: Vec<ColumnTag> = (0..=MAX_COLUMNS).map(tag).collect();
        let refused = triggers(&table("t"), &many, &table("c"));
        assert!(refused.is_err_and(|why| why.contains("17 columns")));
        assert!(triggers(&table("t"), &many[1..], &table("c")).is_ok());
    }
}
