BEGIN TRANSACTION;
CREATE TABLE annotations (
	id TEXT NOT NULL, 
	circuit TEXT NOT NULL, 
	node TEXT NOT NULL, 
	role TEXT NOT NULL, 
	said_by TEXT NOT NULL, 
	run TEXT, 
	scores JSON NOT NULL, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_annotations PRIMARY KEY (id), 
	CONSTRAINT fk_annotations_circuit FOREIGN KEY(circuit) REFERENCES circuits (id), 
	CONSTRAINT fk_annotations_run FOREIGN KEY(run) REFERENCES runs (id)
);
INSERT INTO "annotations" VALUES('b5cd6397a225dc703fa62241bfbd95ed32456e077bef8a8cda3178b859cfd58d','5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0','a10.h7','S-inhibition','Ada','00000000000000000000000000000000','{"inhibition":0.5}','2026-11-29 15:33:31.786288',0);
CREATE TABLE attachments (
	owner_kind TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	name TEXT NOT NULL, 
	media_type TEXT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	sha256 TEXT NOT NULL, 
	says TEXT NOT NULL, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_attachments PRIMARY KEY (owner_kind, owner, name)
);
INSERT INTO "attachments" VALUES('circuit','5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0','größen-circuit.csv','text/csv',1,'0000000000000000000000000000000000000000000000000000000000000001','Sizes, 大きさ','2026-11-29 15:33:31.786288',0);
INSERT INTO "attachments" VALUES('run','00000000000000000000000000000000','größen-run.csv','text/csv',2,'0000000000000000000000000000000000000000000000000000000000000002','Sizes, 大きさ','2026-11-29 15:33:31.786288',1);
INSERT INTO "attachments" VALUES('edit','ad76c7ef4327c71b077e99b8f3c69209386305bc5940815e23cc2d2f067e6111','größen-edit.csv','text/csv',3,'0000000000000000000000000000000000000000000000000000000000000003','Sizes, 大きさ','2026-11-29 15:33:31.786288',2);
INSERT INTO "attachments" VALUES('prompt_set','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','größen-prompt_set.csv','text/csv',4,'0000000000000000000000000000000000000000000000000000000000000004','Sizes, 大きさ','2026-11-29 15:33:31.786288',3);
CREATE TABLE changes (
	kind TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	CONSTRAINT pk_changes PRIMARY KEY (kind, "key")
);
INSERT INTO "changes" VALUES('model','gpt2',1);
INSERT INTO "changes" VALUES('task','ioi',1);
INSERT INTO "changes" VALUES('task','sequence/numerals',1);
INSERT INTO "changes" VALUES('prompt_set','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1);
INSERT INTO "changes" VALUES('run','00000000000000000000000000000000',1);
INSERT INTO "changes" VALUES('circuit','5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0',1);
INSERT INTO "changes" VALUES('evaluation','25966c4b58421bf58502883780ed110e7cd81ef5dfb6ec600b2951a71df3e9d3',1);
INSERT INTO "changes" VALUES('edit','ad76c7ef4327c71b077e99b8f3c69209386305bc5940815e23cc2d2f067e6111',1);
INSERT INTO "changes" VALUES('circuit','2f9d4954d5a6df53e04c0b6d98da9750a424ccd0672c55e6bcc483f4dc78f91e',2);
CREATE TABLE circuit_files (
	circuit TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	name TEXT NOT NULL, 
	format TEXT NOT NULL, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_circuit_files PRIMARY KEY (circuit, sha256), 
	CONSTRAINT fk_circuit_files_circuit FOREIGN KEY(circuit) REFERENCES circuits (id)
);
INSERT INTO "circuit_files" VALUES('2f9d4954d5a6df53e04c0b6d98da9750a424ccd0672c55e6bcc483f4dc78f91e','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','ioi.json','acdc','2026-11-29 15:33:31.786288',0);
CREATE TABLE circuit_runs (
	circuit TEXT NOT NULL, 
	run TEXT NOT NULL, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_circuit_runs PRIMARY KEY (circuit, run), 
	CONSTRAINT fk_circuit_runs_circuit FOREIGN KEY(circuit) REFERENCES circuits (id), 
	CONSTRAINT fk_circuit_runs_run FOREIGN KEY(run) REFERENCES runs (id)
);
INSERT INTO "circuit_runs" VALUES('5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0','00000000000000000000000000000000','2026-11-29 15:33:31.786288',0);
CREATE TABLE circuit_tags (
	circuit TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	tag TEXT NOT NULL, 
	CONSTRAINT pk_circuit_tags PRIMARY KEY (circuit, position), 
	CONSTRAINT fk_circuit_tags_circuit FOREIGN KEY(circuit) REFERENCES circuits (id)
);
INSERT INTO "circuit_tags" VALUES('5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0',0,'old');
CREATE TABLE circuits (
	id TEXT NOT NULL, 
	model TEXT NOT NULL, 
	task TEXT NOT NULL, 
	prompt_set TEXT, 
	method TEXT NOT NULL, 
	metric TEXT, 
	ablation TEXT, 
	sign TEXT NOT NULL, 
	level TEXT NOT NULL, 
	n_nodes BIGINT NOT NULL, 
	n_edges BIGINT NOT NULL, 
	universe_size BIGINT, 
	scores TEXT, 
	recorded_at DATETIME NOT NULL, 
	title TEXT, 
	notes JSON NOT NULL, 
	author TEXT, 
	state TEXT NOT NULL, 
	superseded_by TEXT, 
	reason TEXT, 
	search_text TEXT NOT NULL, 
	CONSTRAINT pk_circuits PRIMARY KEY (id), 
	CONSTRAINT fk_circuits_model FOREIGN KEY(model) REFERENCES models (slug), 
	CONSTRAINT fk_circuits_prompt_set FOREIGN KEY(prompt_set) REFERENCES prompt_sets (id), 
	CONSTRAINT fk_circuits_superseded_by FOREIGN KEY(superseded_by) REFERENCES circuits (id) DEFERRABLE INITIALLY DEFERRED, 
	CONSTRAINT fk_circuits_task FOREIGN KEY(task) REFERENCES tasks (slug)
);
INSERT INTO "circuits" VALUES('5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0','gpt2','ioi','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','edge-attribution','logit_difference','resample','helps-positive','edge',3,2,32491,'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','2026-11-29 15:33:31.786288','IOI, 名前','[]',NULL,'active',NULL,NULL,'ioi, 名前');
INSERT INTO "circuits" VALUES('2f9d4954d5a6df53e04c0b6d98da9750a424ccd0672c55e6bcc483f4dc78f91e','gpt2','ioi',NULL,'published',NULL,NULL,'unknown','node',1,0,NULL,NULL,'2026-11-29 15:33:31.786288',NULL,'[]',NULL,'superseded','5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0','made by hand','');
CREATE TABLE edit_files (
	edit TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	name TEXT NOT NULL, 
	format TEXT NOT NULL, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_edit_files PRIMARY KEY (edit, sha256), 
	CONSTRAINT fk_edit_files_edit FOREIGN KEY(edit) REFERENCES edits (id)
);
INSERT INTO "edit_files" VALUES('ad76c7ef4327c71b077e99b8f3c69209386305bc5940815e23cc2d2f067e6111','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','éd.json','easyedit','2026-11-29 15:33:31.786288',0);
CREATE TABLE edits (
	id TEXT NOT NULL, 
	model TEXT NOT NULL, 
	editor TEXT NOT NULL, 
	hyperparameters JSON NOT NULL, 
	request JSON NOT NULL, 
	restriction TEXT, 
	components JSON NOT NULL, 
	circuits JSON NOT NULL, 
	note TEXT, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, run TEXT CONSTRAINT fk_edits_run REFERENCES runs (id), 
	CONSTRAINT pk_edits PRIMARY KEY (id), 
	CONSTRAINT fk_edits_model FOREIGN KEY(model) REFERENCES models (slug)
);
INSERT INTO "edits" VALUES('ad76c7ef4327c71b077e99b8f3c69209386305bc5940815e23cc2d2f067e6111','gpt2','ROME','{"layers":[5]}','{"prompt":"{} lives in","subject":"Zoë","target_new":"Kraków"}','circuit','["m5"]','["5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0"]',NULL,'2026-11-29 15:33:31.786288',0,'00000000000000000000000000000000');
CREATE TABLE evaluations (
	id TEXT NOT NULL, 
	circuit TEXT NOT NULL, 
	task TEXT NOT NULL, 
	prompt_set TEXT, 
	measure TEXT NOT NULL, 
	value DOUBLE NOT NULL, 
	"full" DOUBLE, 
	empty DOUBLE, 
	ablation TEXT, 
	n_prompts BIGINT, 
	parameters JSON NOT NULL, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, run TEXT CONSTRAINT fk_evaluations_run REFERENCES runs (id), 
	CONSTRAINT pk_evaluations PRIMARY KEY (id), 
	CONSTRAINT fk_evaluations_circuit FOREIGN KEY(circuit) REFERENCES circuits (id), 
	CONSTRAINT fk_evaluations_prompt_set FOREIGN KEY(prompt_set) REFERENCES prompt_sets (id), 
	CONSTRAINT fk_evaluations_task FOREIGN KEY(task) REFERENCES tasks (slug)
);
INSERT INTO "evaluations" VALUES('25966c4b58421bf58502883780ed110e7cd81ef5dfb6ec600b2951a71df3e9d3','5028f9c4bef4ffbd94aee0a08c89769b6e27bf393f2ff46534d48557bafd49e0','ioi',NULL,'faithfulness',0.875,NULL,NULL,NULL,NULL,'{}','2026-11-29 15:33:31.786288',0,'00000000000000000000000000000000');
CREATE TABLE graphs (
	address TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	noted_at DATETIME NOT NULL, 
	CONSTRAINT pk_graphs PRIMARY KEY (address)
);
CREATE TABLE imported_files (
	sha256 TEXT NOT NULL, 
	name TEXT NOT NULL, 
	format TEXT NOT NULL, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_imported_files PRIMARY KEY (sha256)
);
INSERT INTO "imported_files" VALUES('ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','values.json','seqcont','2026-11-29 15:33:31.786288',0);
CREATE TABLE ledger_revision (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT ledger_revision_pkc PRIMARY KEY (version_num)
);
INSERT INTO "ledger_revision" VALUES('0004');
CREATE TABLE models (
	slug TEXT NOT NULL, 
	source TEXT, 
	revision TEXT, 
	weights_sha256 TEXT, 
	architecture TEXT, 
	n_layers BIGINT, 
	n_heads BIGINT, 
	n_kv_heads BIGINT, 
	d_model BIGINT, 
	d_head BIGINT, 
	d_mlp BIGINT, 
	d_vocab BIGINT, 
	parallel_attn_mlp BOOLEAN NOT NULL, 
	CONSTRAINT pk_models PRIMARY KEY (slug)
);
INSERT INTO "models" VALUES('gpt2',NULL,NULL,'1111111111111111111111111111111111111111111111111111111111111111',NULL,12,12,NULL,NULL,NULL,NULL,NULL,0);
CREATE TABLE outcomes (
	id TEXT NOT NULL, 
	edit TEXT NOT NULL, 
	metric TEXT NOT NULL, 
	protocol TEXT NOT NULL, 
	task TEXT, 
	"before" DOUBLE, 
	"after" DOUBLE, 
	n_prompts BIGINT, 
	recorded_at DATETIME NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_outcomes PRIMARY KEY (id), 
	CONSTRAINT fk_outcomes_edit FOREIGN KEY(edit) REFERENCES edits (id), 
	CONSTRAINT fk_outcomes_task FOREIGN KEY(task) REFERENCES tasks (slug)
);
INSERT INTO "outcomes" VALUES('044c5e42d9a45df2f0cd1c683c3d3300cf2a74834a204dbe8f7b231b1cfa7e04','ad76c7ef4327c71b077e99b8f3c69209386305bc5940815e23cc2d2f067e6111','efficacy','unknown','ioi',0.125,0.75,NULL,'2026-11-29 15:33:31.786288',0);
CREATE TABLE prompt_sets (
	id TEXT NOT NULL, 
	task TEXT NOT NULL, 
	seed BIGINT, 
	n_prompts BIGINT NOT NULL, 
	bos BOOLEAN, 
	tokenizer TEXT, 
	model TEXT, 
	share_correct DOUBLE, 
	share_top1 DOUBLE, 
	artifact TEXT, 
	CONSTRAINT pk_prompt_sets PRIMARY KEY (id), 
	CONSTRAINT fk_prompt_sets_model FOREIGN KEY(model) REFERENCES models (slug), 
	CONSTRAINT fk_prompt_sets_task FOREIGN KEY(task) REFERENCES tasks (slug)
);
INSERT INTO "prompt_sets" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','ioi',7,80,0,'GPT2TokenizerFast','gpt2',0.96,0.5,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb');
CREATE TABLE "registry" (
	id TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	instance TEXT NOT NULL, 
	restored_from TEXT, 
	CONSTRAINT pk_registry PRIMARY KEY (id)
);
INSERT INTO "registry" VALUES('fcc2537b7c1f423495c30afa2213d97f','2026-11-29 15:33:31.776482','2f6798daa37847038c2941a2b1a29bf6',NULL);
CREATE TABLE revisions (
	number BIGINT NOT NULL, 
	token TEXT NOT NULL, 
	CONSTRAINT pk_revisions PRIMARY KEY (number)
);
INSERT INTO "revisions" VALUES(1,'77d2cf5a2a4e496da59725f1c73e8de0');
INSERT INTO "revisions" VALUES(2,'de89fb7752ac4a68af70f239cb6c9609');
CREATE TABLE runs (
	id TEXT NOT NULL, 
	job TEXT NOT NULL, 
	version TEXT NOT NULL, 
	configuration JSON NOT NULL, 
	configuration_sha256 TEXT NOT NULL, 
	status TEXT NOT NULL, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	device TEXT, 
	packages JSON NOT NULL, 
	error TEXT, host TEXT, pid BIGINT, process_started TEXT, boot TEXT, beats BIGINT, beat_at DATETIME, seen_beats BIGINT, seen_at DATETIME, stages JSON, 
	CONSTRAINT pk_runs PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES('00000000000000000000000000000000','edge-attribution','0.1.0','{"model":"gpt2","task":"ioi","top":2}','91e76b7c809afcce67c57a59b9f0a18ee2ea80a5cf6f882725c03d08191d7439','finished','2026-11-01 09:30:00.000000','2026-11-01 09:31:00.000000','cpu','{"torch":"2.9.0"}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE tasks (
	slug TEXT NOT NULL, 
	family TEXT NOT NULL, 
	description TEXT NOT NULL, 
	CONSTRAINT pk_tasks PRIMARY KEY (slug)
);
INSERT INTO "tasks" VALUES('ioi','ioi','Indirect object identification');
INSERT INTO "tasks" VALUES('sequence/numerals','sequence','');
CREATE INDEX ix_prompt_sets_task ON prompt_sets (task);
CREATE INDEX ix_runs_configuration_sha256 ON runs (configuration_sha256);
CREATE INDEX ix_runs_started_at ON runs (started_at);
CREATE INDEX ix_circuits_model ON circuits (model);
CREATE INDEX ix_circuits_recorded_at ON circuits (recorded_at);
CREATE INDEX ix_circuits_task ON circuits (task);
CREATE INDEX ix_evaluations_circuit ON evaluations (circuit);
CREATE INDEX ix_outcomes_edit ON outcomes (edit);
CREATE INDEX ix_changes_revision ON changes (revision);
CREATE INDEX ix_evaluations_run ON evaluations (run);
CREATE INDEX ix_edits_run ON edits (run);
CREATE INDEX ix_annotations_circuit ON annotations (circuit);
COMMIT;
