// Large vocabularies without blocking the event loop: 128,000 tokens take 0.3 s to parse and 0.6 s to put into maps. A
// worker thread parses tokenizer.json and gives the vocabulary and the merges in parts, on request; between parts the
// event loop runs.
import { Worker } from 'node:worker_threads';
import type { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';

/** Smaller files are parsed at once, in a few milliseconds. */
const smallBytes = 192 << 10;

/** Entries of a part: under a millisecond to put in. */
const partEntries = 1024;

type Json = Record<string, unknown>;

/** `tokenizer.json` without its vocabulary and merges, and a way to put them into the tokenizer made of it. */
export interface TokenizerParts {
  readonly json: Json;
  fill(tokenizer: HubTokenizer): Promise<void>;
}

type Reply =
  | { readonly error: string }
  | { readonly json: unknown; readonly tokens: number; readonly merges: number; readonly unknownId?: number }
  | { readonly tokens: string[]; readonly ids: number[] }
  | { readonly ranks: string[] };

// As text, because a bundle of this package is one file. Answers each request [kind, first, end] with one message; the
// ranks are keyed as
// @huggingface/tokenizers keys them.
const workerSource = `
const { parentPort, workerData } = require('node:worker_threads');
let names = [], ids = [], merges = [];
const take = (json) => {
  const model = json?.model;
  if (model?.type !== 'BPE' || typeof model.vocab !== 'object' || Array.isArray(model.vocab) || !Array.isArray(model.merges)) return { json, tokens: 0, merges: 0 };
  names = Object.keys(model.vocab);
  ids = Object.values(model.vocab);
  merges = Array.isArray(model.merges[0]) ? model.merges : model.merges.map((text) => text.split(' ', 2));
  const unknownId = model.unk_token === null ? undefined : model.vocab[model.unk_token];
  return { json: { ...json, model: { ...model, vocab: {}, merges: [] } }, tokens: names.length, merges: merges.length, unknownId };
};
parentPort.on('message', ([kind, first, end]) => {
  if (kind === 'tokens') parentPort.postMessage({ tokens: names.slice(first, end), ids: ids.slice(first, end) });
  else parentPort.postMessage({ ranks: merges.slice(first, end).map((pair) => JSON.stringify(pair)) });
});
try {
  parentPort.postMessage(take(JSON.parse(new TextDecoder('utf-8', { ignoreBOM: true }).decode(workerData))));
} catch (error) {
  parentPort.postMessage({ error: error.message });
}`;

/** What a BPE model of @huggingface/tokenizers looks things up in. */
interface Bpe {
  tokens_to_ids: Map<string, number>;
  vocab: string[];
  bpe_ranks: Map<string, number>;
  unk_token_id: number | undefined;
}

const nextReply = (worker: Worker): Promise<Reply> =>
  new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('message', (reply: Reply) => {
      worker.off('error', reject);
      resolve(reply);
    });
  });

/** Takes turns with whatever else waits for the event loop. */
const othersFirst = () => new Promise<void>((resolve) => setImmediate(resolve));

async function fill(
  tokenizer: HubTokenizer,
  worker: Worker,
  counts: { tokens: number; merges: number; unknownId?: number },
): Promise<void> {
  if (counts.tokens === 0) return; // another model than BPE: the worker gave all of it
  const bpe = (tokenizer as unknown as { model: Bpe }).model;
  const added = [...bpe.tokens_to_ids]; // they come before what the vocabulary says
  const ask = async <R>(kind: 'tokens' | 'merges', first: number): Promise<R> => {
    const reply = nextReply(worker);
    worker.postMessage([kind, first, first + partEntries]);
    await othersFirst();
    return (await reply) as R;
  };
  bpe.vocab = new Array<string>(counts.tokens);
  for (let first = 0; first < counts.tokens; first += partEntries) {
    const { tokens, ids } = await ask<{ tokens: string[]; ids: number[] }>('tokens', first);
    for (const [i, token] of tokens.entries()) {
      bpe.tokens_to_ids.set(token, ids[i]);
      bpe.vocab[ids[i]] = token;
    }
  }
  for (const [token, id] of added) {
    bpe.tokens_to_ids.set(token, id);
    bpe.vocab[id] = token;
  }
  bpe.unk_token_id = counts.unknownId;
  for (let first = 0; first < counts.merges; first += partEntries) {
    const { ranks } = await ask<{ ranks: string[] }>('merges', first);
    for (const [i, key] of ranks.entries()) bpe.bpe_ranks.set(key, first + i);
  }
}

/**
 * Runs `use` with the parts of a `tokenizer.json`.
 * @param options.small files up to this many bytes are parsed on this thread
 * @throws what `parse` throws for text that is not valid
 */
export async function withTokenizerParts<T>(
  bytes: Buffer,
  parse: (text: string) => Json,
  use: (parts: TokenizerParts) => Promise<T>,
  { small = smallBytes } = {},
): Promise<T> {
  if (bytes.byteLength <= small) return use({ json: parse(bytes.toString('utf8')), fill: async () => undefined });
  const worker = new Worker(workerSource, { eval: true, workerData: bytes });
  try {
    const reply = await nextReply(worker);
    const isObject =
      'json' in reply && typeof reply.json === 'object' && reply.json !== null && !Array.isArray(reply.json);
    if (!isObject) return await use({ json: parse(bytes.toString('utf8')), fill: async () => undefined }); // which says what is wrong with it
    return await use({ json: reply.json as Json, fill: (tokenizer) => fill(tokenizer, worker, reply) });
  } finally {
    await worker.terminate();
  }
}
