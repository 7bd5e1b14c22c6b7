use super::*;
use crate::progress::Silent;

/// A collection of three documents; files may be replaced.
struct Folder(tempfile::TempDir);

const DOCUMENTS: &str = "{\"_id\": \"d1\", \"title\": \"Mills\", \"text\": \"The mill of Ash.\"}\n\
                         {\"_id\": \"d2\", \"title\": \"\", \"text\": \" A tower. \"}\n{\"_id\": 3, \"text\": \"No title.\"}\n";
const QUESTIONS: &str = "{\"_id\": \"q1\", \"text\": \"who built the mill\", \"metadata\": {}}\n\
                         {\"_id\": \"q2\", \"text\": \"a tower?\"}\n{\"_id\": \"q3\", \"text\": \"of another split\"}\n";
const JUDGEMENTS: &str = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\nq2\t3\t1\n";

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.with("corpus.jsonl", DOCUMENTS).with("queries.jsonl", QUESTIONS).with("qrels/test.tsv", JUDGEMENTS)
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Folder {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn open(&self, split: &str) -> Result<Collection, DataError> {
        Collection::open(self.0.path(), split, &mut Silent)
    }
}

#[test]
fn documents_are_title_and_text_and_queries_are_those_that_are_judged() {
    let folder = Folder::new();
    let collection = folder.open("test").unwrap();
    let mut documents = Vec::new();
    collection
        .for_each_document::<DataError>(|document| {
            documents.push((document.id, document.text));
            Ok(())
        })
        .unwrap();
    let expected = [("d1", "Mills The mill of Ash."), ("d2", "A tower."), ("3", "No title.")];
    assert_eq!(documents, expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
    assert_eq!(collection.documents, 3);
    let queries: Vec<&str> = collection.queries.iter().map(|query| query.id.as_str()).collect();
    assert_eq!(queries, ["q1", "q2"]);
    assert_eq!(collection.queries[0].judged, BTreeMap::from([("d1".to_owned(), 2), ("d2".to_owned(), 0)]));
}

#[test]
fn judgements_may_lack_the_header_or_be_trecs() {
    for text in ["q1\td1\t2\nq2\td2\t1\n", "q1 0 d1 2\nq2 0 d2 1\n", "q1\t0\td1\t2\nq2\t0\td2\t1\n"] {
        let collection = Folder::new().with("qrels/test.tsv", text).open("test").unwrap();
        assert_eq!(collection.queries[0].judged, BTreeMap::from([("d1".to_owned(), 2)]), "{text:?}");
    }
}

#[test]
fn a_first_query_that_is_called_as_a_header_is_judged() {
    let folder = Folder::new().with("queries.jsonl", "{\"_id\": \"query1\", \"text\": \"a tower\"}\n");
    let collection = folder.with("qrels/test.tsv", "query1\td2\t1\n").open("test").unwrap();
    assert_eq!(collection.queries[0].judged, BTreeMap::from([("d2".to_owned(), 1)]));
}

#[test]
fn what_is_wrong_is_told_with_its_file_and_line() {
    let fails = |name: &str, content: &[u8], part: &str| {
        let message = Folder::new().with(name, content).open("test").unwrap_err().to_string();
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    };
    fails(
        "corpus.jsonl",
        b"{\"_id\": \"d1\", \"text\": \"x\"}\n{\"_id\": \"d1\"}\n",
        "corpus.jsonl:2: missing field `text`",
    );
    fails("corpus.jsonl", b"{\"_id\": \"d1\", \"text\": \"x\"}\n{\"_id\"", "corpus.jsonl:2: EOF");
    fails("corpus.jsonl", b"{\"_id\": \"d1\", \"text\": \"x\"}\n[1]\n", "corpus.jsonl:2: it is not a JSON object");
    fails("corpus.jsonl", b"{\"_id\": \"d1\", \"text\": \"\xff\"}\n", "corpus.jsonl:1: it is not UTF-8");
    fails("corpus.jsonl", b"{\"_id\": \" \", \"text\": \"x\"}\n", "corpus.jsonl:1: its _id is \" \"");
    fails(
        "corpus.jsonl",
        (DOCUMENTS.to_owned() + DOCUMENTS).as_bytes(),
        "corpus.jsonl:4: the id 'd1' stands in line 1",
    );
    fails("queries.jsonl", b"{\"_id\": \"q1\", \"text\": 3}\n", "queries.jsonl:1: invalid type");
    fails(
        "queries.jsonl",
        b"{\"_id\": \"q1\", \"text\": \"x\"}\n",
        "test.tsv:4: the query 'q2' is not in queries.jsonl",
    );
    fails(
        "qrels/test.tsv",
        b"q1\td1\t1\nq1\td9\t1\nq2\td8\t1\n",
        "test.tsv:2: the document judged here (and 1 more) is not",
    );
    fails("qrels/test.tsv", b"q1\td1\t1\nq1\td1\t0\n", "test.tsv:2: the same query and document stand in line 1");
    fails("qrels/test.tsv", b"q1\td1\thigh\n", "test.tsv:1: its score 'high' is not a whole number");
    fails("qrels/test.tsv", b"q1\td1\n", "test.tsv:1: it has 2 columns");
    fails("qrels/test.tsv", b"q1\t\t1\n", "test.tsv:1: an id in it is empty");
    fails("qrels/test.tsv", b"query-id\tcorpus-id\tscore\n", "has no judgement");
    let message = Folder::new().with("qrels/dev.tsv.gz", b"").open("train").unwrap_err().to_string();
    assert!(message.contains("no train.tsv: the splits there are dev, test"), "{message}");
    let message = Collection::open(Path::new("/"), "test", &mut Silent).unwrap_err().to_string();
    assert!(message.contains("no corpus.jsonl or corpus.jsonl.gz"), "{message}");
}

#[test]
fn relevant_documents_are_positives_and_those_judged_not_to_be_are_negatives() {
    let folder = Folder::new();
    let mut pairs = Vec::new();
    let each: &mut EachRow<'_> = &mut |row, pair| {
        pairs.push((row, pair.unwrap()));
        Ok(())
    };
    read_pairs(folder.0.path(), BeirSplit::Test, each).unwrap();
    let pair = |query: &str, positive: &str, negatives: &[&str]| Pair::new(query, positive, negatives).unwrap();
    let expected = [
        (1, pair("who built the mill", "Mills The mill of Ash.", &["A tower."])),
        (2, pair("a tower?", "No title.", &[])),
        (3, pair("a tower?", "A tower.", &[])),
    ];
    assert_eq!(pairs, expected);
}
