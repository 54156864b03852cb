import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { inspectCheckpoint, modelFolder, type CheckpointReport } from '@q/transformers';
import type { Command } from 'commander';
import { addHubFlags, addOutputFlags, defaultModel, modelArgument, type ModelFlags } from '../flags.js';
import { bytes, count, print, printFields, printJson, printTable, warn } from '../output.js';
import type { Context } from '../program.js';

type InspectFlags = Pick<ModelFlags, 'revision' | 'localFilesOnly' | 'json'> & { modules?: boolean };

export function addInspect(program: Command, { signal }: Context): void {
  addOutputFlags(
    addHubFlags(
      program
        .command('inspect')
        .description('Show what a checkpoint holds, from its headers only.')
        .argument('[model]', `${modelArgument}, or a safetensors file`, defaultModel)
        .option('--modules', 'list every module instead of one line for each kind'),
    ),
  ).action(async (id: string, { json, modules, ...hub }: InspectFlags) => {
    const place = (await isFile(id)) ? id : await modelFolder(id, { ...hub, signal });
    const report = await inspectCheckpoint(place, { signal });
    if (json) return printJson(report);
    show(report, modules ?? false);
  });
}

const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (status) => !status.isDirectory(),
    () => false, // a Hub id, or what opening the folder will complain of
  );

function show(report: CheckpointReport, all: boolean): void {
  printFields([
    ['folder', report.folder],
    ['model', [report.modelType, report.architectures?.join(', ')].filter(Boolean).join(': ') || 'unknown'],
    ['dtype', report.torchDtype],
    ['quantization', report.quantization?.method ?? 'none'],
    ['parameters', count(report.parameters)],
    ['bytes', bytes(report.bytes)],
    ['files', report.files.length],
  ]);
  print();
  printTable(
    ['file', 'tensors>', 'size>'],
    report.files.map((file) => [basename(file.path), file.tensors, bytes(file.bytes)]),
  );
  print();
  printTable(
    ['dtype', 'tensors>', 'elements>', 'size>'],
    Object.entries(report.dtypes).map(([dtype, total]) => [
      dtype,
      total.tensors,
      count(total.elements),
      bytes(total.bytes),
    ]),
  );
  print();
  const kinds = all ? report.modules.map((module) => ({ ...module, modules: 1 })) : kindsOf(report);
  printTable(
    [all ? 'module' : 'kind of module', 'modules>', 'format', 'parameters>', 'size>'],
    kinds.map((kind) => [kind.name, kind.modules, formatsOf(kind.entries), count(kind.parameters), bytes(kind.bytes)]),
  );
  for (const warning of report.warnings) warn(warning);
}

type Module = CheckpointReport['modules'][number];

/** Layers of one kind (`model.layers.*.mlp.up_proj`) and format taken together. */
function kindsOf({ modules }: CheckpointReport): (Module & { modules: number })[] {
  const kinds = new Map<string, Module & { modules: number }>();
  for (const module of modules) {
    const name = module.name.replace(/\.\d+(?=\.|$)/g, '.*');
    const key = `${name} ${formatsOf(module.entries)}`;
    const known = kinds.get(key);
    kinds.set(key, {
      name,
      entries: module.entries,
      modules: (known?.modules ?? 0) + 1,
      parameters: (known?.parameters ?? 0) + module.parameters,
      bytes: (known?.bytes ?? 0) + module.bytes,
    });
  }
  return [...kinds.values()];
}

const formatsOf = (entries: Module['entries']): string =>
  [...new Set(entries.map(({ storedAs }) => storedAs))].join(', ');
