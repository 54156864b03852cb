// Random tokenizers and texts against tokenizers 0.23.2: every component, alone and in sequences.
import { describe, expect, it } from 'vitest';
import { fixture } from '../testing.js';
import { pipelineOf } from './pipeline.js';

interface Stored {
  readonly charsmap: string;
  readonly models: readonly object[];
  readonly tokenizers: readonly {
    json: Record<string, unknown> & { model: number };
    cases: readonly { text: string; ids: number[]; mix: number[]; decoded: string; skipped: string }[];
  }[];
}

const { charsmap, models, tokenizers } = fixture<Stored>('tokenizer-components');

const nameOf = ({ normalizer, pre_tokenizer: pre, decoder, model }: Record<string, unknown>): string =>
  [normalizer, pre, models[model as number], decoder]
    .map((part) => (part as { type: string } | null)?.type ?? 'none')
    .join(', ');

const withMap = (json: object): Record<string, unknown> =>
  JSON.parse(JSON.stringify(json).replaceAll('CHARSMAP', charsmap)) as Record<string, unknown>;

const plain = { pair: undefined, addSpecialTokens: false, splitSpecialTokens: false };

describe('tokenizer.json of random components', () => {
  it.each(tokenizers.map((tokenizer, i) => [`${i} ${nameOf(tokenizer.json)}`, tokenizer] as const))(
    '%s',
    (_, { json, cases }) => {
      const pipeline = pipelineOf(withMap({ ...json, model: models[json.model] })).finish();
      for (const { text, ids, mix, decoded, skipped } of cases) {
        expect(pipeline.encode(text, plain), JSON.stringify(text)).toEqual(ids);
        expect(pipeline.decode(mix, false)).toBe(decoded);
        expect(pipeline.decode(mix, true)).toBe(skipped);
      }
    },
  );
});
