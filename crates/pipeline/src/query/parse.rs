//! What a query may say: one statement that reads, over the tables that are there.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, Select, SetExpr, Spanned, Statement, TableFactor,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::{ErrorKind, QueryError};
use crate::sql::{SqlError, did_you_mean, name_of, parser};

const READS: &str = "a query only reads: SELECT, WITH, VALUES, EXPLAIN or DESCRIBE";

impl QueryError {
    fn at(kind: ErrorKind, location: Location, message: impl Into<String>) -> QueryError {
        let SqlError { line, column, message } = SqlError::at(location, message);
        QueryError { kind, position: Some((line, column)), message }
    }

    fn syntax(error: SqlError) -> QueryError {
        QueryError {
            kind: ErrorKind::Syntax,
            position: Some((error.line, error.column)),
            message: error.message,
        }
    }
}

/// Parses a query and binds its tables' names: a name with points means the stream of that name.
pub(super) fn read_only(
    sql: &str,
    tables: &[&str],
    state: &SessionState,
) -> Result<Statement, QueryError> {
    let mut parser = parser(sql).map_err(QueryError::syntax)?;
    let first = parser.peek_token_ref();
    if let Token::Word(word) = &first.token
        && word.quote_style.is_none()
        && !reads(word.keyword)
        && is_statement(&word.value)
    {
        let message = format!("`{}` is not possible here: {READS}", word.value.to_uppercase());
        return Err(QueryError::at(ErrorKind::NotReadOnly, first.span.start, message));
    }
    if first.token == Token::EOF {
        return Err(QueryError::at(ErrorKind::Syntax, first.span.start, "the query is empty"));
    }
    let start = first.span.start;
    let mut statement = parser
        .parse_statement()
        .map_err(|error| QueryError::syntax(SqlError::from_parser(&error, sql)))?;
    while parser.consume_token(&Token::SemiColon) {}
    let rest = parser.peek_token_ref();
    if rest.token != Token::EOF {
        let message = format!("one statement at a time: found `{}` after it", rest.token);
        return Err(QueryError::at(ErrorKind::Syntax, rest.span.start, message));
    }
    if !is_read(&statement) {
        return Err(QueryError::at(
            ErrorKind::NotReadOnly,
            start,
            format!("this statement is not possible here: {READS}"),
        ));
    }
    let mut binder = Binder { tables, state, local: HashSet::new() };
    match statement.visit(&mut binder) {
        ControlFlow::Continue(()) => Ok(statement),
        ControlFlow::Break(error) => Err(error),
    }
}

fn reads(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::SELECT
            | Keyword::WITH
            | Keyword::VALUES
            | Keyword::EXPLAIN
            | Keyword::DESCRIBE
            | Keyword::DESC
            | Keyword::FROM
    )
}

/// True for the first word of a statement that does something; not for a slip of the pen (`SELCT`).
fn is_statement(word: &str) -> bool {
    const STATEMENTS: [&str; 46] = [
        "ALTER",
        "ANALYZE",
        "ATTACH",
        "BEGIN",
        "CACHE",
        "CALL",
        "CLOSE",
        "COMMENT",
        "COMMIT",
        "COPY",
        "CREATE",
        "DEALLOCATE",
        "DECLARE",
        "DELETE",
        "DETACH",
        "DISCARD",
        "DO",
        "DROP",
        "EXECUTE",
        "EXPORT",
        "GRANT",
        "IMPORT",
        "INSERT",
        "INSTALL",
        "KILL",
        "LOAD",
        "LOCK",
        "MERGE",
        "OPTIMIZE",
        "PRAGMA",
        "PREPARE",
        "REFRESH",
        "RELEASE",
        "RENAME",
        "REPLACE",
        "RESET",
        "REVOKE",
        "ROLLBACK",
        "SAVEPOINT",
        "SET",
        "SHOW",
        "START",
        "TRUNCATE",
        "UPDATE",
        "USE",
        "VACUUM",
    ];
    STATEMENTS.contains(&word.to_uppercase().as_str())
}

fn is_read(statement: &Statement) -> bool {
    match statement {
        Statement::Query(_) | Statement::ExplainTable { .. } => true,
        Statement::Explain { statement, .. } => matches!(statement.as_ref(), Statement::Query(_)),
        _ => false,
    }
}

struct Binder<'a> {
    tables: &'a [&'a str],
    state: &'a SessionState,
    /// Names that WITH gives.
    local: HashSet<String>,
}

impl VisitorMut for Binder<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        if let Some(with) = &query.with {
            self.local.extend(with.cte_tables.iter().map(|cte| cte.alias.name.value.clone()));
        }
        let fault = match query.body.as_ref() {
            SetExpr::Insert(_) => Some("INSERT"),
            SetExpr::Update(_) => Some("UPDATE"),
            SetExpr::Delete(_) => Some("DELETE"),
            SetExpr::Merge(_) => Some("MERGE"),
            _ if !query.locks.is_empty() => Some("FOR UPDATE"),
            _ => None,
        };
        match fault {
            None => ControlFlow::Continue(()),
            Some(what) => ControlFlow::Break(QueryError::at(
                ErrorKind::NotReadOnly,
                query.span().start,
                format!("`{what}` is not possible here: {READS}"),
            )),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        match &select.into {
            None => ControlFlow::Continue(()),
            Some(into) => ControlFlow::Break(QueryError::at(
                ErrorKind::NotReadOnly,
                into.span().start,
                format!("`INTO` is not possible here: {READS}"),
            )),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<QueryError> {
        let TableFactor::Table { name, args: Some(_), .. } = factor else {
            return ControlFlow::Continue(());
        };
        let function = name.to_string();
        if self.state.table_functions().contains_key(&function.to_lowercase()) {
            self.local.insert(function);
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(QueryError::at(
            ErrorKind::UnknownTable,
            name.span().start,
            format!("unknown table function `{function}`; files and URLs are no tables here"),
        ))
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<QueryError> {
        let parts = relation.0.iter().filter_map(ObjectNamePart::as_ident);
        let name = parts.map(name_of).collect::<Vec<_>>().join(".");
        if self.tables.contains(&name.as_str()) {
            let mut ident = Ident::with_quote('"', name);
            ident.span = relation.span();
            *relation = ObjectName::from(vec![ident]);
            return ControlFlow::Continue(());
        }
        if self.local.contains(&name) {
            return ControlFlow::Continue(());
        }
        let file = name.contains('/')
            || [".parquet", ".csv", ".json", ".arrow"].iter().any(|end| name.ends_with(end));
        let hint = if file {
            "; files and URLs are no tables here".to_owned()
        } else {
            let known = did_you_mean(&name, self.tables.iter().copied());
            if known.is_empty() { self.list() } else { known }
        };
        ControlFlow::Break(QueryError::at(
            ErrorKind::UnknownTable,
            relation.span().start,
            format!("unknown table `{name}`{hint}"),
        ))
    }
}

impl Binder<'_> {
    fn list(&self) -> String {
        const SHOWN: usize = 8;
        if self.tables.is_empty() {
            return "; there are no tables yet: send rows to a stream first".to_owned();
        }
        let shown = self.tables.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
        let more = if self.tables.len() > SHOWN { ", …" } else { "" };
        format!("; there are: {shown}{more}")
    }
}
