// Log likelihoods of labels against those of transformers (model(input_ids, labels=labels)): 1e-4 absolute.
import { describe, expect, it } from 'vitest';
import { ConfigError } from '@q/config';
import { AutoModelForSeq2SeqLM, perplexityOf, type Seq2SeqModel } from './index.js';
import { fixture, temporaryFolders, unpackCheckpoint } from './testing.js';

interface Scored {
  inputIds: number[];
  /** -100 in the middle and at the end of the first pair; m2m_100: at the end only, see {@link Seq2SeqModel.score}. */
  labels: number[];
  mean: number;
  logLikelihoods: number[];
}

const expected = fixture<Record<string, Scored[]>>('scores-seq2seq');
const temporary = temporaryFolders();
const tolerance = 1e-4;

const load = async (name: string): Promise<Seq2SeqModel> =>
  AutoModelForSeq2SeqLM.fromPretrained(await unpackCheckpoint(name, await temporary(name)), { threads: 1 });

/** Python's mBART begins with the last label that is no padding, counted as if padding were at the end. */
const beginOf = (name: string, { labels }: Scored): number | undefined =>
  name === 'mbart' ? labels[labels.filter((label) => label !== -100).length - 1] : undefined;

describe('score', () => {
  it.each(Object.keys(expected))('%s: means and log likelihoods are those of transformers', async (name) => {
    await using model = await load(name);
    for (const pair of expected[name]) {
      const seen: [number, number, Float32Array][] = [];
      const [mean] = await model.score([pair], {
        decoderStartTokenId: beginOf(name, pair),
        onPair: (...one) => seen.push(one),
      });
      expect(Math.abs(mean - pair.mean)).toBeLessThanOrEqual(tolerance);
      const [[index, meanSeen, logLikelihoods]] = seen;
      expect([index, meanSeen]).toEqual([0, mean]);
      expect(logLikelihoods).toHaveLength(pair.labels.length);
      pair.logLikelihoods.forEach((value, i) =>
        expect(Math.abs(logLikelihoods[i] - value)).toBeLessThanOrEqual(tolerance),
      );
    }
  });

  it('of several pairs are those of each alone, and nothing is left behind', async () => {
    await using model = await load('t5');
    const pairs = expected.t5.map(({ inputIds, labels }) => ({ inputIds, labels }));
    const alone = [...(await model.score(pairs.slice(0, 1))), ...(await model.score(pairs.slice(1)))];
    const before = model.backend.memory().usedBytes;
    expect(await model.score(pairs)).toEqual(alone);
    expect(model.backend.memory().usedBytes).toBe(before);
    expect(perplexityOf(alone)).toBeGreaterThan(1);
  });

  it('labels of more rows than are made at a time', async () => {
    await using model = await load('t5');
    const labels = Array.from({ length: 600 }, (_, i) => (i * 7) % 90);
    let all: Float32Array = new Float32Array();
    await model.score([{ inputIds: [5, 6, 1], labels }], { onPair: (_, __, given) => (all = given) });
    let first: Float32Array = new Float32Array();
    await model.score([{ inputIds: [5, 6, 1], labels: labels.slice(0, 300) }], {
      onPair: (_, __, given) => (first = given),
    });
    expect(all.slice(0, 300)).toEqual(first);
  });

  it.each([
    ['no list', 'abc', {}, /pairs is "abc"/],
    ['no pairs', [], {}, /an empty list/],
    ['null', [null], {}, /inputIds of pairs\[0\] is undefined/],
    ['ids alone', [{ inputIds: [1] }], {}, /labels of pairs\[0\] is undefined/],
    ['no text', [{ inputIds: [], labels: [1] }], {}, /inputIds of pairs\[0\] is an empty list/],
    ['no labels', [{ inputIds: [1], labels: [] }], {}, /labels of pairs\[0\] has nothing to score/],
    ['ignored labels', [{ inputIds: [1], labels: [-100, -100] }], {}, /labels of pairs\[0\] has nothing to score/],
    ['no id', [{ inputIds: [1], labels: [-100, -1] }], {}, /labels of pairs\[0\]\[1\]: -1 is no token id/],
    ['a long text', [{ inputIds: Array(500).fill(3), labels: [1] }], {}, /inputIds of pairs\[0\] has 500 tokens/],
    ['long labels', [{ inputIds: [1], labels: Array(500).fill(3) }], {}, /labels of pairs\[0\] has 500 tokens/],
    ['an unknown option', [{ inputIds: [1], labels: [1] }], { onpair: () => 0 }, /onPair/],
    ['no function', [{ inputIds: [1], labels: [1] }], { onPair: 3 }, /onPair is 3/],
    ['no start', [{ inputIds: [1], labels: [1] }], { decoderStartTokenId: 1e6 }, /decoderStartTokenId is 1000000/],
  ])('%s', async (_, pairs, options, message) => {
    await using model = await load('bart');
    const call = model.score(pairs as never, options as object);
    await expect(call).rejects.toThrow(ConfigError);
    await expect(call).rejects.toThrow(message);
  });

  it('ends with the reason of its signal, and when the model is disposed', async () => {
    const model = await load('t5');
    const pair = { inputIds: [5, 6, 1], labels: [3, 4] };
    const reason = new Error('enough');
    await expect(model.score([pair], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await model.dispose();
    await expect(model.score([pair])).rejects.toThrow(/disposed/);
  });
});
