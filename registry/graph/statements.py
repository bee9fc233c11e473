"""The Cypher that the projection writes; the same text on every engine.

``$rows`` is a list of maps, or of tuples if there are many. Nodes that circuits share are merged on
their ids. Nodes of a single circuit are created in the transaction that creates the circuit and
nowhere else, so the constraints turn a second creation into an error, not into a duplicate.
"""

from __future__ import annotations

from registry.identifiers import Kind

__all__ = [
    "ADD_CIRCUITS",
    "ADD_COMPONENTS",
    "ADD_CONNECTIONS",
    "ADD_EDGES",
    "ADD_NODES",
    "ADD_OUTCOMES",
    "ADD_USES",
    "ANNOTATED_BY_RUN",
    "ANNOTATES",
    "CIRCUIT_SIZES",
    "COMPONENTS_OF_CIRCUITS",
    "CONNECTIONS_OF_CIRCUITS",
    "COUNT_EDGES",
    "DELETE_ANNOTATIONS",
    "DELETE_CIRCUITS",
    "DELETE_EVALUATIONS",
    "DELETE_NODES",
    "DELETE_OTHER_ANNOTATIONS",
    "DELETE_SOME_EDGES",
    "DELETE_SOME_NODES",
    "DELETE_SOME_USES",
    "DELETE_UNUSED_COMPONENTS",
    "DELETE_UNUSED_CONNECTIONS",
    "FOUND_ON",
    "KNOWN_CIRCUITS",
    "KNOWN_COMPONENTS",
    "KNOWN_CONNECTIONS",
    "KNOWN_EDITS",
    "LABEL_COMPONENTS",
    "MADE",
    "MARK_UNFINISHED",
    "MEASURED",
    "MERGE_ANNOTATIONS",
    "MERGE_EDITS",
    "MERGE_EVALUATIONS",
    "MERGE_MODELS",
    "MERGE_OUTCOMES",
    "MERGE_PROMPT_SETS",
    "MERGE_RUNS",
    "MERGE_TASKS",
    "MODIFIES",
    "OUTCOMES_ON_TASK",
    "PRODUCED",
    "REMOVED_AT_ONCE",
    "SOME_NODES",
    "SOME_USES",
    "TAKING_IDS",
    "TARGETS",
    "UNFINISHED",
    "UNMARK_UNFINISHED",
    "UPDATE_CIRCUITS",
]

# -- single records ----------------------------------------------------------------------------

MERGE_MODELS = "UNWIND $rows AS row MERGE (m:Model {id: row.id}) SET m += row.properties"
MERGE_TASKS = "UNWIND $rows AS row MERGE (t:Task {id: row.id}) SET t += row.properties"
MERGE_RUNS = "UNWIND $rows AS row MERGE (r:Run {id: row.id}) SET r += row.properties"
MERGE_PROMPT_SETS = """
UNWIND $rows AS row
MERGE (p:PromptSet {id: row.id})
SET p += row.properties
MERGE (t:Task {id: row.task})
MERGE (p)-[:FOR_TASK]->(t)
"""

# -- the reference layer -----------------------------------------------------------------------

KNOWN_COMPONENTS = "UNWIND $ids AS id MATCH (c:Component {id: id}) RETURN c.id AS id ORDER BY id"
KNOWN_CONNECTIONS = "UNWIND $ids AS id MATCH (k:Connection {id: id}) RETURN k.id AS id ORDER BY id"
ADD_COMPONENTS = """
UNWIND $rows AS row
MERGE (m:Model {id: row.model})
CREATE (c:Component {id: row.id})-[:PART_OF]->(m)
SET c += row.properties
"""
ADD_CONNECTIONS = """
UNWIND $rows AS row
MATCH (s:Component {id: row.source})
MATCH (t:Component {id: row.target})
CREATE (s)<-[:FROM]-(k:Connection {id: row.id, model: row.model, local: row.local,
  port: row.port})-[:TO]->(t)
"""
_LABELS = {
    Kind.INPUT: "Input",
    Kind.EMBED: "Embed",
    Kind.POS_EMBED: "PosEmbed",
    Kind.HEAD: "Head",
    Kind.KV_HEAD: "KVHead",
    Kind.MLP: "MLP",
    Kind.NEURON: "Neuron",
    Kind.SUBSPACE: "Subspace",
    Kind.FEATURE: "Feature",
    Kind.ERROR: "Error",
    Kind.LOGITS: "Logits",
    Kind.LOGIT: "Logit",
    Kind.NORM: "Norm",
    Kind.UNEMBED: "Unembed",
}
LABEL_COMPONENTS = {
    kind.value: f"UNWIND $ids AS id MATCH (c:Component {{id: id}}) SET c:{label}"
    for kind, label in _LABELS.items()
}

# -- circuits ----------------------------------------------------------------------------------

KNOWN_CIRCUITS = "UNWIND $ids AS id MATCH (c:Circuit {id: id}) RETURN c.id AS id ORDER BY id"
ADD_CIRCUITS = """
UNWIND $rows AS row
MERGE (m:Model {id: row.model})
MERGE (t:Task {id: row.task})
CREATE (c:Circuit {id: row.id})
SET c += row.properties
CREATE (c)-[:OF_MODEL]->(m)
CREATE (c)-[:FOR_TASK]->(t)
"""
UPDATE_CIRCUITS = "UNWIND $rows AS row MATCH (c:Circuit {id: row.id}) SET c += row.properties"
FOUND_ON = """
UNWIND $rows AS row
MATCH (c:Circuit {id: row.circuit})
MERGE (p:PromptSet {id: row.prompt_set})
MERGE (c)-[:FOUND_ON]->(p)
"""
PRODUCED = """
UNWIND $rows AS row
MATCH (c:Circuit {id: row.circuit})
MERGE (r:Run {id: row.run})
MERGE (r)-[:PRODUCED]->(c)
"""
# Rows of these are NodeRow, EdgeRow and UseRow of registry.graph.rows, by index.
ADD_NODES = """
UNWIND $rows AS row
MATCH (c:Circuit {id: row[1]})
MATCH (k:Component {id: row[2]})
CREATE (c)-[:HAS_NODE]->(n:Node {id: row[0], effect: row[3], rank: row[4], role: row[5],
  position: row[6], density: row[7]})-[:INSTANCE_OF]->(k)
"""
ADD_EDGES = """
UNWIND $rows AS row
MATCH (s:Node {id: row[0]})
MATCH (t:Node {id: row[1]})
CREATE (s)-[:EDGE {connection: row[2], port: row[3], effect: row[4], rank: row[5]}]->(t)
"""
ADD_USES = """
UNWIND $rows AS row
MATCH (c:Circuit {id: row[0]})
MATCH (k:Connection {id: row[1]})
CREATE (c)-[:USES {effect: row[2], rank: row[3], positions: row[4]}]->(k)
"""

# -- facts about circuits ----------------------------------------------------------------------

MERGE_EVALUATIONS = """
UNWIND $rows AS row
MATCH (c:Circuit {id: row.circuit})
MERGE (t:Task {id: row.task})
MERGE (e:Evaluation {id: row.id})
SET e += row.properties
MERGE (e)-[:OF]->(c)
MERGE (e)-[:ON_TASK]->(t)
"""
MEASURED = """
UNWIND $rows AS row
MATCH (e:Evaluation {id: row.evaluation})
MERGE (r:Run {id: row.run})
MERGE (r)-[:MEASURED]->(e)
"""
# An annotation's id is the hash of its content: a changed annotation has another id.
DELETE_OTHER_ANNOTATIONS = """
UNWIND $rows AS row
MATCH (a:Annotation)-[:OF]->(c:Circuit {id: row.circuit})
WHERE NOT a.id IN row.said
DETACH DELETE a
"""
MERGE_ANNOTATIONS = """
UNWIND $rows AS row
MATCH (c:Circuit {id: row.circuit})
MERGE (a:Annotation {id: row.id})
SET a += row.properties
MERGE (a)-[:OF]->(c)
"""
ANNOTATES = """
UNWIND $rows AS row
MATCH (a:Annotation {id: row.id})
MATCH (k:Component {id: row.component})<-[:INSTANCE_OF]-(n:Node)<-[:HAS_NODE]-(c:Circuit)
WHERE c.id = row.circuit AND (row.position IS NULL OR n.position = row.position)
MERGE (a)-[:ANNOTATES]->(n)
"""
ANNOTATED_BY_RUN = """
UNWIND $rows AS row
MATCH (a:Annotation {id: row.id})
MERGE (r:Run {id: row.run})
MERGE (r)-[:MADE]->(a)
"""
KNOWN_EDITS = "UNWIND $ids AS id MATCH (e:Edit {id: id}) RETURN e.id AS id ORDER BY id"
MERGE_EDITS = "UNWIND $rows AS row MERGE (e:Edit {id: row.id}) SET e += row.properties"
MADE = """
UNWIND $rows AS row
MATCH (e:Edit {id: row.edit})
MERGE (r:Run {id: row.run})
MERGE (r)-[:MADE]->(e)
"""
TARGETS = """
UNWIND $rows AS row
MATCH (e:Edit {id: row.edit})
MATCH (c:Circuit {id: row.circuit})
MERGE (e)-[:TARGETS]->(c)
"""
MODIFIES = """
UNWIND $rows AS row
MATCH (e:Edit {id: row.edit})
MATCH (c:Component {id: row.component})
MERGE (e)-[:MODIFIES]->(c)
"""
# Rows of these are OutcomeRow of registry.ledger.base, by index.
ADD_OUTCOMES = """
UNWIND $rows AS row
MATCH (e:Edit {id: row[1]})
CREATE (e)-[:MEASURED]->(o:Outcome {id: row[0], edit: row[1], metric: row[2], protocol: row[3],
  task: row[4], before: row[5], after: row[6], n_prompts: row[7]})
"""
MERGE_OUTCOMES = """
UNWIND $rows AS row
MATCH (e:Edit {id: row[1]})
MERGE (o:Outcome {id: row[0]})
SET o.edit = row[1], o.metric = row[2], o.protocol = row[3], o.task = row[4], o.before = row[5],
  o.after = row[6], o.n_prompts = row[7]
MERGE (e)-[:MEASURED]->(o)
"""
OUTCOMES_ON_TASK = """
UNWIND $rows AS row
MATCH (o:Outcome {id: row[0]})
MERGE (t:Task {id: row[4]})
MERGE (o)-[:ON_TASK]->(t)
"""

# -- retraction --------------------------------------------------------------------------------

CONNECTIONS_OF_CIRCUITS = """
UNWIND $ids AS id
MATCH (c:Circuit {id: id})-[:USES]->(k:Connection)
RETURN DISTINCT k.id AS id
ORDER BY id
"""
COMPONENTS_OF_CIRCUITS = """
UNWIND $ids AS id
MATCH (c:Circuit {id: id})-[:HAS_NODE]->(:Node)-[:INSTANCE_OF]->(k:Component)
RETURN DISTINCT k.id AS id
ORDER BY id
"""
DELETE_NODES = """
UNWIND $ids AS id
MATCH (c:Circuit {id: id})-[:HAS_NODE]->(n:Node)
DETACH DELETE n
"""
DELETE_EVALUATIONS = """
UNWIND $ids AS id
MATCH (e:Evaluation)-[:OF]->(c:Circuit {id: id})
DETACH DELETE e
"""
DELETE_ANNOTATIONS = """
UNWIND $ids AS id
MATCH (a:Annotation)-[:OF]->(c:Circuit {id: id})
DETACH DELETE a
"""
DELETE_CIRCUITS = "UNWIND $ids AS id MATCH (c:Circuit {id: id}) DETACH DELETE c"
DELETE_UNUSED_CONNECTIONS = """
UNWIND $ids AS id
MATCH (k:Connection {id: id})
WHERE NOT (k)<-[:USES]-()
DETACH DELETE k
"""
DELETE_UNUSED_COMPONENTS = """
UNWIND $ids AS id
MATCH (c:Component {id: id})
WHERE NOT (c)<-[:INSTANCE_OF]-() AND NOT (c)<-[:FROM]-() AND NOT (c)<-[:TO]-()
  AND NOT (c)<-[:MODIFIES]-()
DETACH DELETE c
"""

# -- circuits that one transaction cannot hold ---------------------------------------------------

UNFINISHED = "MATCH (u:Unfinished) RETURN u.id AS id ORDER BY id"
MARK_UNFINISHED = "UNWIND $ids AS id MERGE (u:Unfinished {id: id})"
UNMARK_UNFINISHED = "UNWIND $ids AS id MATCH (u:Unfinished {id: id}) DELETE u"
CIRCUIT_SIZES = """
UNWIND $ids AS id
MATCH (c:Circuit {id: id})
RETURN c.id AS id, c.n_nodes + c.n_edges AS size
ORDER BY id
"""
COUNT_EDGES = """
UNWIND $ids AS id
MATCH (c:Circuit {id: id})-[:HAS_NODE]->(:Node)-[e:EDGE]->(:Node)
RETURN count(e) AS n
"""
REMOVED_AT_ONCE = 5_000
DELETE_SOME_EDGES = f"""
UNWIND $ids AS id
MATCH (c:Circuit {{id: id}})-[:HAS_NODE]->(:Node)-[e:EDGE]->(:Node)
WITH e
LIMIT {REMOVED_AT_ONCE}
DELETE e
"""
SOME_USES = f"""
UNWIND $ids AS id
MATCH (c:Circuit {{id: id}})-[:USES]->(k:Connection)
WITH c, k
LIMIT {REMOVED_AT_ONCE}
RETURN c.id AS circuit, k.id AS id
ORDER BY id
"""
DELETE_SOME_USES = """
UNWIND $rows AS row
MATCH (c:Circuit {id: row.circuit})-[u:USES]->(k:Connection {id: row.id})
DELETE u
"""
SOME_NODES = f"""
UNWIND $ids AS id
MATCH (c:Circuit {{id: id}})-[:HAS_NODE]->(n:Node)-[:INSTANCE_OF]->(k:Component)
WITH n, k
LIMIT {REMOVED_AT_ONCE}
RETURN n.id AS id, k.id AS component
ORDER BY id
"""
DELETE_SOME_NODES = "UNWIND $ids AS id MATCH (n:Node {id: id}) DETACH DELETE n"

TAKING_IDS = frozenset(
    {
        *LABEL_COMPONENTS.values(),
        MARK_UNFINISHED,
        UNMARK_UNFINISHED,
        DELETE_SOME_EDGES,
        DELETE_SOME_NODES,
        DELETE_UNUSED_COMPONENTS,
        DELETE_UNUSED_CONNECTIONS,
    }
)
"""Statements that write and take ``$ids``, not ``$rows``."""
