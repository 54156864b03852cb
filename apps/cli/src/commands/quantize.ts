import { ConfigError, inspectCheckpoint, modelFolder } from '@q/transformers';
import type { Command } from 'commander';
import { addModelFlags, modelArgument, quantizationOf, type ModelFlags } from '../flags.js';
import { loadModel, quantizationName } from '../load.js';
import { bytes, printFields, printJson, seconds } from '../output.js';
import type { Context } from '../program.js';
import { progressBar } from '../progress.js';

interface QuantizeFlags extends ModelFlags {
  maxShardSize?: string;
}

export function addQuantize(program: Command, { signal }: Context): void {
  addModelFlags(
    program
      .command('quantize')
      .description('Load a model, quantize it, and save it so that Q and Python load it again.')
      .argument('<model>', modelArgument)
      .argument('<out>', 'folder to write')
      .option('--max-shard-size <size>', 'most bytes of a file: 5GB, 500MB (default: 5GB)'),
  ).action(async (id: string, out: string, flags: QuantizeFlags) => {
    if (!quantizationOf(flags))
      throw new ConfigError('quantize', 'no quantization is given', { fix: 'add --load-in-4bit or --load-in-8bit' });
    const started = performance.now();
    const { revision, localFilesOnly } = flags;
    const source = await modelFolder(id, { revision, localFilesOnly, signal });
    const before = await inspectCheckpoint(source, { signal });
    const { model, loadMs } = await loadModel(source, flags, signal);
    await using _ = model;
    using bar = progressBar('saving', 'bytes');
    const files = await model.savePretrained(out, {
      signal,
      ...(flags.maxShardSize && { maxShardSize: flags.maxShardSize }),
      onProgress: ({ bytes: done, totalBytes }) => bar.update(done, totalBytes),
    });
    bar.stop();
    const after = await inspectCheckpoint(out, { signal });
    const result = {
      model: id,
      out,
      quantization: quantizationName(model),
      bytesBefore: before.bytes,
      bytesAfter: after.bytes,
      ratio: before.bytes / after.bytes,
      layers: model.summary().linears,
      files,
      loadMs,
      seconds: (performance.now() - started) / 1000,
    };
    if (flags.json) return printJson(result);
    printFields([
      ['model', id],
      ['quantization', result.quantization],
      [
        'layers',
        Object.entries(result.layers)
          .map(([name, n]) => `${n} ${name}`)
          .join(', '),
      ],
      ['before', bytes(before.bytes)],
      ['after', `${bytes(after.bytes)} (${result.ratio.toFixed(2)} times smaller)`],
      ['written to', out],
      ['files', files.join(', ')],
      ['time', seconds(1000 * result.seconds)],
    ]);
  });
}
