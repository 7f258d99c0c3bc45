PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version VALUES('0001');
CREATE TABLE studies (
	id INTEGER NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	job TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	data TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	elapsed_s FLOAT NOT NULL, 
	epoch INTEGER NOT NULL, 
	owner VARCHAR(120) NOT NULL, 
	lease_until FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO studies VALUES(1,'first','{"name":"first","dataset":{"kind":"digits","path":null,"name":null,"download":false,"in_chans":null,"val_fraction":0.2,"test_fraction":0.2,"max_images":200,"on_broken_image":"error","image_column":"image","label_column":"label"},"space":{"name":"vit_micro_8","description":"","preset":"vit_micro_8","fixed":{},"dimensions":{},"drop":[]},"objectives":["accuracy","eer"],"constraints":[],"eer":{"metrics":["params","macs","bits","size"],"reference":{"name":"ViT-B/16","params_m":86.6,"flops_g":17.6,"bits":32.0,"size_mb":330.0,"latency_ms":null,"memory_mb":null},"weights":null},"search":{"sampler":"random","trials":3,"time_limit_s":null,"workers":1,"threads_per_worker":null,"max_retries":2,"trial_timeout_s":3600.0,"population":null},"train":{"recipe":"plain","epochs":1,"batch_size":64,"optimizer":"adamw","lr":0.001,"weight_decay":0.05,"warmup_epochs":1.0,"min_lr":0.00001,"label_smoothing":0.0,"mixup":0.0,"cutmix":0.0,"randaugment_ops":0,"randaugment_magnitude":9,"flip":0.0,"crop_padding_px":0,"erasing":0.0,"drop_path":0.0,"dropout":0.0,"clip_grad_norm":1.0,"autocast":"fp32","finetune_epochs":1,"early_stop":true},"evaluate":{"batch_size":256,"calibration_images":128},"targets":[{"name":"local","runtime":"pytorch","batch_size":1,"threads":1,"warmup":0,"repeats":3}],"final":{"retrain":"knee","epochs":1},"storage":{"url":null,"optuna_mirror":false},"tracking":{"enabled":false,"uri":null,"experiment":null},"seed":0}','finished','{"fingerprint":"fcd32e539b3a65a4","class_names":["0","1","2","3","4","5","6","7","8","9"],"in_chans":1,"image_size":8,"mean":[0.3062738970588235],"std":[0.3762935053798954],"num_train":200,"num_val":288,"num_test":360,"chance_accuracy":0.10069444444444445,"skipped":[]}',1795960590.4729216098,13.436047142000006715,1,'',0.0);
CREATE TABLE trials (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	candidate_hash VARCHAR(16) NOT NULL, 
	candidate TEXT NOT NULL, 
	cost TEXT NOT NULL, 
	draw TEXT NOT NULL, 
	sampler_state TEXT NOT NULL, 
	note TEXT NOT NULL, 
	same_as INTEGER, 
	attempts INTEGER NOT NULL, 
	worker VARCHAR(64) NOT NULL, 
	lease_until FLOAT NOT NULL, 
	asked_at FLOAT NOT NULL, 
	finished_at FLOAT, 
	PRIMARY KEY (study_id, number), 
	FOREIGN KEY(study_id) REFERENCES studies (id)
);
INSERT INTO trials VALUES(1,0,'told','evaluate','775dbb9cde36b823','{"architecture":{"image_size":8,"in_chans":1,"num_classes":10,"patch_size":4,"depth":4,"width":64,"heads":4,"mlp_ratio":1.0,"class_token":true,"distilled":false,"pool":"token","pre_norm":false,"patch_bias":true,"layer_scale":false},"tokens":{"reducer":"none"},"sparsity":{"method":"magnitude","mlp_units":56,"heads":2},"precision":{"quantizer":"uniform","calibration":"minmax","weight_bits":16,"activation_bits":8}}','{"num_params":65834,"num_macs":332736,"bits":12.0,"weight_bits":16.0,"activation_bits":8.0,"size_mb":0.131668,"tokens":[5,5,5,5,5],"kind":"exact"}','{"architecture.depth": 4, "architecture.width": 64, "architecture.heads": 4, "architecture.patch_size": 4, "architecture.mlp_ratio": 1.0, "tokens.reducer": "none", "tokens.r": 4, "tokens.keep": 0.7, "tokens.tau": 5.33025405636706e-05, "sparsity.mlp_ratio": 0.125, "sparsity.heads_ratio": 0.5, "precision.weight_bits": 16, "precision.activation_bits": 8}','{}','',NULL,1,'w0',0.0,1795960609.1032786369,1795960621.255619049);
INSERT INTO trials VALUES(1,1,'told','evaluate','6f7c3107e4ce06ea','{"architecture":{"image_size":8,"in_chans":1,"num_classes":10,"patch_size":4,"depth":4,"width":32,"heads":1,"mlp_ratio":2.0,"class_token":true,"distilled":false,"pool":"token","pre_norm":false,"patch_bias":true,"layer_scale":false},"tokens":{"reducer":"none"},"sparsity":{"method":"magnitude","mlp_units":48,"heads":null},"precision":{"quantizer":"uniform","calibration":"minmax","weight_bits":4,"activation_bits":32}}','{"num_params":31146,"num_macs":159328,"bits":18.0,"weight_bits":4.0,"activation_bits":32.0,"size_mb":0.02132,"tokens":[5,5,5,5,5],"kind":"exact"}','{"architecture.depth": 4, "architecture.width": 32, "architecture.heads": 1, "architecture.patch_size": 4, "architecture.mlp_ratio": 2.0, "tokens.reducer": "evit", "tokens.r": 1, "tokens.keep": 0.8, "tokens.tau": 2.5761697095312595e-05, "sparsity.mlp_ratio": 0.25, "sparsity.heads_ratio": 0.0, "precision.weight_bits": 4, "precision.activation_bits": 32}','{}','',NULL,1,'w0',0.0,1795960621.2753984928,1795960621.8575060367);
INSERT INTO trials VALUES(1,2,'told','evaluate','28430d77411c0282','{"architecture":{"image_size":8,"in_chans":1,"num_classes":10,"patch_size":4,"depth":5,"width":64,"heads":4,"mlp_ratio":3.0,"class_token":true,"distilled":false,"pool":"token","pre_norm":false,"patch_bias":true,"layer_scale":false},"tokens":{"reducer":"none"},"sparsity":{"method":"magnitude","mlp_units":144,"heads":2},"precision":{"quantizer":"uniform","calibration":"minmax","weight_bits":6,"activation_bits":32}}','{"num_params":138490,"num_macs":695936,"bits":19.0,"weight_bits":6.0,"activation_bits":32.0,"size_mb":0.115912,"tokens":[5,5,5,5,5,5],"kind":"exact"}','{"architecture.depth": 5, "architecture.width": 64, "architecture.heads": 4, "architecture.patch_size": 4, "architecture.mlp_ratio": 3.0, "tokens.reducer": "none", "tokens.r": 1, "tokens.keep": 0.5, "tokens.tau": 0.002711674527345168, "sparsity.mlp_ratio": 0.25, "sparsity.heads_ratio": 0.5, "precision.weight_bits": 6, "precision.activation_bits": 32}','{}','',NULL,1,'w0',0.0,1795960621.8649876118,1795960622.5278062819);
CREATE TABLE results (
	study_id INTEGER NOT NULL, 
	trial INTEGER NOT NULL, 
	outcome TEXT NOT NULL, 
	figures TEXT NOT NULL, 
	PRIMARY KEY (study_id, trial), 
	FOREIGN KEY(study_id, trial) REFERENCES trials (study_id, number)
);
INSERT INTO results VALUES(1,0,'{"kind":"result","trial":0,"accuracy":0.3055555555555556,"loss":2.185224461418226,"dense_accuracy":0.2777777777777778,"split":"val","epochs_run":1,"stopped_early":false,"train_s":1.4011828309999146,"total_s":6.007971721000104,"num_params":65834,"weights_file":"model.safetensors","weights_sha256":"4a3cb3cc5ca1ce4398b66478193bd88d1f6db3aa80108095281a7bde6cf03f89","device":"cpu","autocast":"fp32"}','{"num_params": 65834.0, "num_macs": 332736.0, "bits": 12.0, "size_mb": 0.131668, "eer_pct": 9.404452681153336, "accuracy": 0.3055555555555556, "latency_ms_p50": 2.368527999806247, "latency_ms_p95": 2.440203099786231, "images_per_s": 422.2031574386299, "peak_memory_mb": 0.877736}');
INSERT INTO results VALUES(1,1,'{"kind":"result","trial":1,"accuracy":0.2152777777777778,"loss":2.277572500421852,"dense_accuracy":0.15625,"split":"val","epochs_run":1,"stopped_early":false,"train_s":0.2137526930000604,"total_s":0.5564421060003042,"num_params":31146,"weights_file":"model.safetensors","weights_sha256":"98fc29e49a649536309e45b83810fa478837291b5f8bb400e3c5f38dd8de6891","device":"cpu","autocast":"fp32"}','{"num_params": 31146.0, "num_macs": 159328.0, "bits": 18.0, "size_mb": 0.02132, "eer_pct": 14.073332809188887, "accuracy": 0.2152777777777778}');
INSERT INTO results VALUES(1,2,'{"kind":"result","trial":2,"accuracy":0.4305555555555556,"loss":2.1932121321485343,"dense_accuracy":0.17708333333333334,"split":"val","epochs_run":1,"stopped_early":false,"train_s":0.29806696200012084,"total_s":0.6443003409999619,"num_params":138490,"weights_file":"model.safetensors","weights_sha256":"2f697dc50c6f5647b9422a33d66b308d5f0d0adfc001f11dc333610ccfcc9929","device":"cpu","autocast":"fp32"}','{"num_params": 138490.0, "num_macs": 695936.0, "bits": 19.0, "size_mb": 0.115912, "eer_pct": 14.893499549723563, "accuracy": 0.4305555555555556, "latency_ms_p50": 1.9092229999841948, "latency_ms_p95": 2.1424490002118546, "images_per_s": 523.7732836909456, "peak_memory_mb": 13.951976}');
CREATE TABLE profiles (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	trial INTEGER NOT NULL, 
	target VARCHAR(64) NOT NULL, 
	profile TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(study_id, trial) REFERENCES trials (study_id, number)
);
INSERT INTO profiles VALUES(1,1,2,'local','{"latency_ms_p50":1.9092229999841948,"latency_ms_p95":2.1424490002118546,"latency_ms_spread":0.08975614695021915,"images_per_s":523.7732836909456,"peak_memory_mb":13.951976,"file_size_mb":0.562248,"conditions":{"target":"local","runtime":"pytorch 2.15.0+cu132","device":"Intel(R) Xeon(R) Processor","dtype":"float32","batch_size":1,"threads":1,"warmup":0,"repeats":3,"contended":false}}');
INSERT INTO profiles VALUES(2,1,0,'local','{"latency_ms_p50":2.368527999806247,"latency_ms_p95":2.440203099786231,"latency_ms_spread":0.09274198989996167,"images_per_s":422.2031574386299,"peak_memory_mb":0.877736,"file_size_mb":0.271648,"conditions":{"target":"local","runtime":"pytorch 2.15.0+cu132","device":"Intel(R) Xeon(R) Processor","dtype":"float32","batch_size":1,"threads":1,"warmup":0,"repeats":3,"contended":false}}');
CREATE TABLE finals (
	study_id INTEGER NOT NULL, 
	trial INTEGER NOT NULL, 
	outcome TEXT NOT NULL, 
	PRIMARY KEY (study_id, trial), 
	FOREIGN KEY(study_id, trial) REFERENCES trials (study_id, number)
);
INSERT INTO finals VALUES(1,2,'{"kind":"result","trial":2,"accuracy":0.25,"loss":2.193719198165619,"dense_accuracy":0.2152777777777778,"split":"test","epochs_run":1,"stopped_early":false,"train_s":0.3157271969998874,"total_s":0.9179424070002824,"num_params":138490,"weights_file":"model.safetensors","weights_sha256":"05259c9d63ee316560eb39cd36858ef4153e48f351498781eadd98a0c574334c","device":"cpu","autocast":"fp32"}');
CREATE TABLE outbox (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	payload TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	delivered_at FLOAT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(study_id) REFERENCES studies (id)
);
INSERT INTO outbox VALUES(1,1,'front','{"members": [0]}',1795960621.269844532,NULL);
INSERT INTO outbox VALUES(2,1,'front','{"members": [2, 0]}',1795960622.5319836139,NULL);
INSERT INTO outbox VALUES(3,1,'front','{"members": [2, 0]}',1795960632.5203928947,NULL);
INSERT INTO outbox VALUES(4,1,'finished','{}',1795960632.5212733746,NULL);
CREATE INDEX ix_trials_hash ON trials (study_id, candidate_hash);
CREATE INDEX ix_profiles_trial ON profiles (study_id, trial);
COMMIT;
