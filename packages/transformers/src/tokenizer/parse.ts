// tokenizer.json to a pipeline. A large one (128,000 tokens take 0.3 s to parse and as long to put into tables) is
// parsed by a worker thread and comes in parts, between which the event loop runs.
import { Worker } from 'node:worker_threads';
import { CheckpointError } from '@q/config';
import { tokenizerLimits, type TokenizerLimits } from '../limits.js';
import { longestTimer } from './deadline.js';
import { fillModel, modelBuilderOf, Pipeline } from './pipeline.js';
import { isObject, Section, type Json } from './section.js';
import { workerSource } from './worker-source.js';

/** Smaller files are parsed at once, in a few milliseconds. */
const smallBytes = 192 << 10;

/** What Node takes for the heap of a thread. */
const mostHeapMegabytes = 2 ** 20;

/** Entries of a part: about a millisecond to put in. */
const partEntries = 1024;

type Reply =
  | { readonly error: string }
  | { readonly rest: Json; readonly tokens: number; readonly merges: number }
  | { readonly tokens: unknown[]; readonly values: unknown[] }
  | { readonly merges: unknown[] };

export interface ParseOptions {
  /** Files up to this many bytes are parsed on this thread. */
  readonly small?: number;
  readonly signal?: AbortSignal;
  readonly limits?: TokenizerLimits;
}

/** @throws CheckpointError for a file that is damaged; the signal's reason on abort. */
export async function parseTokenizer(bytes: Buffer, file: string, options: ParseOptions = {}): Promise<Pipeline> {
  const { small = smallBytes, signal, limits = tokenizerLimits } = options;
  signal?.throwIfAborted();
  if (bytes.byteLength <= small) return parseSmall(bytes, file, limits);
  const worker = new Worker(workerSource, {
    eval: true,
    workerData: bytes,
    resourceLimits: { maxOldGenerationSizeMb: Math.min(limits.parserHeapMegabytes, mostHeapMegabytes) },
  });
  try {
    return await parseInParts(new Asker(worker, file, limits, signal));
  } finally {
    await worker.terminate();
  }
}

function parseSmall(bytes: Buffer, file: string, limits: TokenizerLimits): Pipeline {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new CheckpointError('tokenizer', `${file} is not valid JSON`, { cause });
  }
  if (!isObject(json)) throw new CheckpointError('tokenizer', `${file} must hold a JSON object`, {});
  const root = new Section(file, '', json, limits);
  const model = root.section('model');
  return new Pipeline(root, fillModel(modelBuilderOf(model), model));
}

async function parseInParts(asker: Asker): Promise<Pipeline> {
  const { file, limits } = asker;
  const head = await asker.next();
  if (!('rest' in head)) throw new CheckpointError('tokenizer', `${file} gave no answer`, {});
  const root = new Section(file, '', head.rest, limits);
  const section = root.section('model');
  const builder = modelBuilderOf(section);
  if (!Array.isArray(section.value.vocab)) section.section('vocab');
  for (let first = 0; first < head.tokens; first += partEntries) {
    const part = await asker.ask('tokens', first);
    if ('values' in part) builder.addTokens(part.tokens, part.values);
  }
  for (let first = 0; first < head.merges; first += partEntries) {
    const part = await asker.ask('merges', first);
    if ('merges' in part) builder.addMerges(part.merges as unknown[]);
  }
  return new Pipeline(root, builder.finish());
}

/** Takes turns with whatever else waits for the event loop. */
const othersFirst = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Questions to the worker; each settles, whatever becomes of it. */
class Asker {
  constructor(
    readonly worker: Worker,
    readonly file: string,
    readonly limits: TokenizerLimits,
    readonly signal: AbortSignal | undefined,
  ) {}

  async ask(kind: 'tokens' | 'merges', first: number): Promise<Reply> {
    const reply = this.next();
    this.worker.postMessage([kind, first, first + partEntries]);
    await Promise.race([othersFirst(), reply]);
    return reply;
  }

  /** @throws CheckpointError when the worker fails, ends, or is silent; the signal's reason on abort. */
  next(): Promise<Reply> {
    const { worker, file, limits, signal } = this;
    const milliseconds = Math.min(limits.parserMilliseconds, longestTimer);
    const undo: (() => void)[] = [];
    return new Promise<Reply>((resolve, reject) => {
      const refuse = (what: string, cause?: unknown) =>
        reject(new CheckpointError('tokenizer', `${file} ${what}`, { cause }));
      const on = (event: string, listener: (value: never) => void) => {
        worker.once(event, listener as (value: unknown) => void);
        undo.push(() => worker.off(event, listener as (value: unknown) => void));
      };
      on('error', (cause: Error) => refuse('could not be parsed', cause));
      on('messageerror', (cause: Error) => refuse('is nested too deeply', cause));
      on('exit', () => refuse('could not be parsed: its thread ended'));
      on('message', (text: string) => {
        const reply = JSON.parse(text) as Reply;
        if ('error' in reply) refuse(reply.error);
        else resolve(reply);
      });
      const timer = setTimeout(() => refuse('took too long to parse'), milliseconds);
      const abort = () => reject(signal!.reason as Error);
      signal?.addEventListener('abort', abort);
      undo.push(
        () => clearTimeout(timer),
        () => signal?.removeEventListener('abort', abort),
      );
    }).finally(() => undo.forEach((step) => step()));
  }
}
