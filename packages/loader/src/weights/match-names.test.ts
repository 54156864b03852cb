import { describe, expect, it } from 'vitest';
import { CheckpointError, UnsupportedError } from '@q/config';
import type { ParameterSlot, Source } from '@q/tensor';
import { matchNames, type MatchRequest, type StoredTensorInfo } from './match-names.js';

const never = (): never => {
  throw new Error('not to be called');
};
const linear = (module: string, shape: [number, number], tiedTo?: string): ParameterSlot => ({
  kind: 'linear',
  module,
  name: `${module}.weight`,
  shape,
  tiedTo,
  load: never,
  current: never,
});
const tensor = (name: string, shape: number[]): ParameterSlot => ({
  kind: 'tensor',
  name,
  shape,
  load: never,
  current: never,
});

const [embed, head] = ['model.embed.weight', 'head.weight'];
const slotsOf = (tie: boolean): ParameterSlot[] => [
  tensor(embed, [10, 4]),
  linear('model.layers.0.attn.q', [8, 4]),
  linear('model.layers.0.mlp.up', [12, 4]),
  tensor('model.norm.weight', [4]),
  linear('head', [10, 4], tie ? embed : undefined),
];
const info = (shape: readonly number[], dtype = 'f32'): StoredTensorInfo => ({ shape, dtype, file: 'w.safetensors' });
const whole = (): Map<string, StoredTensorInfo> =>
  new Map(slotsOf(false).map(({ name, shape }) => [name, info(shape)]));
const renamed = (rename: (name: string) => string, source = whole()) =>
  new Map([...source].map(([name, stored]) => [rename(name), stored]));
const without = (...names: string[]) => new Map([...whole()].filter(([name]) => !names.includes(name)));

const match = (
  tensors: MatchRequest['tensors'],
  { tie = false, ...more }: Partial<MatchRequest> & { tie?: boolean } = {},
) => matchNames({ tensors, slots: slotsOf(tie), tied: { [head]: embed }, folder: 'folder', ...more });
const namesOf = (stored: ReadonlyMap<string, Source>) =>
  new Map([...stored].map(([name, source]) => [name, source.name]));
const errorOf = (run: () => unknown): CheckpointError => {
  try {
    run();
  } catch (error) {
    return error as CheckpointError;
  }
  throw new Error('nothing was thrown');
};

describe('names', () => {
  describe('of a module that files call otherwise', () => {
    const older = (name: string) => name.replace(/^head\./, 'embed_out.');
    const slots = slotsOf(false).map((slot) =>
      slot.name === head ? { ...slot, sources: [{ name: 'embed_out.weight' }, { name: head }] } : slot,
    );

    it('are found, and kept for saving', () => {
      const { stored, saved, warnings } = match(renamed(older), { slots });
      expect(stored.get(head)).toEqual({ name: 'embed_out.weight' });
      expect(saved.get(head)).toEqual({ name: 'embed_out.weight' });
      expect(warnings).toEqual([]);
    });

    it('are found under a wrapper, with the helpers of a quantized weight', () => {
      const tensors = renamed((name) => `module.${older(name)}`);
      tensors.set('module.embed_out.weight', info([20, 1], 'u8'));
      tensors.set('module.embed_out.weight.absmax', info([1]));
      tensors.set('module.embed_out.weight.quant_map', info([16]));
      const { stored, saved } = match(tensors, { slots });
      expect(stored.get(head)).toEqual({ name: 'module.embed_out.weight' });
      expect(saved.get(head)).toEqual({ name: 'embed_out.weight' });
    });

    it('may be those of the model, and the usual ones win over them', () => {
      const { stored: present, saved } = match(whole(), { slots });
      expect([present.get(head), saved.get(head)]).toEqual([{ name: head }, { name: head }]);
      const both = new Map([...whole(), ['embed_out.weight', info([10, 4])]]);
      const { stored, warnings } = match(both, { slots });
      expect(stored.get(head)).toEqual({ name: 'embed_out.weight' });
      expect(warnings.join()).toContain(head);
    });

    it('are those that a message names, and of a shard that is absent', () => {
      expect(errorOf(() => match(without(head), { slots, tied: {} })).message).toContain('tensors: embed_out.weight');
      const absent = new Map([['embed_out.weight', 'b.safetensors']]);
      expect(String(errorOf(() => match(without(head), { slots, absent })))).toContain('b.safetensors');
    });
  });

  it('are taken as they are', () => {
    const { stored, compare, warnings } = match(whole());
    expect([...namesOf(stored)]).toEqual([...whole().keys()].map((name) => [name, name]));
    expect([compare.size, warnings]).toEqual([0, []]);
  });

  it.each([
    ['a wrapper', (name: string) => `module.${name}`, 'with "module.model." instead of "model." in front'],
    ['a text model inside another', (name: string) => `language_model.${name}`, '"language_model.model."'],
    ['another base', (name: string) => name.replace(/^model\./, 'transformer.'), '"transformer."'],
    [
      'a renamed base with the head outside',
      (name: string) => name.replace(/^model\./, 'model.language_model.'),
      '"model.language_model."',
    ],
  ])('of %s', (_, rename, said) => {
    for (const tie of [false, true]) {
      const source = tie ? without(head) : whole();
      const { stored, warnings } = match(renamed(rename, source), { tie });
      expect(namesOf(stored)).toEqual(new Map([...source.keys()].map((name) => [name, rename(name)])));
      expect(warnings).toEqual([expect.stringContaining(said)]);
    }
  });

  describe('with parts of the path to the base model left out or put in front', () => {
    const path = 'model.decoder.';
    const inDecoder = (name: string) => name.replace(/^model\./, path);
    const slots = (tie: boolean) =>
      slotsOf(tie).map((slot): ParameterSlot => ({
        ...slot,
        name: inDecoder(slot.name),
        tiedTo: slot.tiedTo && inDecoder(slot.tiedTo),
      }));
    const tied = { [head]: inDecoder(embed) };
    const files = (front: string) => renamed((name) => name.replace(/^model\./, front));

    it.each(['decoder.', 'model.', '', path])(
      '"%s" for "model.decoder.": taken without a word, and saved as the model has them',
      (front) => {
        for (const tie of [false, true]) {
          const tensors = files(front);
          if (tie) tensors.delete(head);
          const found = match(tensors, { slots: slots(tie), tied, basePrefix: 'model' });
          const expected = [...tensors.keys()].map((name) => [
            name === head ? head : path + name.slice(front.length),
            name,
          ]);
          expect(namesOf(found.stored)).toEqual(new Map(expected as [string, string][]));
          expect([...namesOf(found.saved)].every(([parameter, name]) => parameter === name)).toBe(true);
          expect(found.warnings).toEqual([]);
        }
      },
    );

    it.each(['model.decoder.', 'decoder.', 'model.', ''])('"%s" for the bare model', (front) => {
      const bare = slots(false).flatMap((slot) =>
        slot.name === head ? [] : [{ ...slot, name: slot.name.slice('model.'.length) }],
      );
      const tensors = files(front);
      tensors.delete(head);
      const found = match(tensors, { slots: bare, tied: {}, basePrefix: 'model' });
      expect([...namesOf(found.stored).values()]).toEqual([...tensors.keys()]);
      expect([...namesOf(found.saved)].every(([parameter, name]) => parameter === name)).toBe(true);
      expect(found.warnings).toEqual([]);
    });

    it('inside a wrapper they are taken with a line, and saved under the names of the model', () => {
      const tensors = renamed((name) => `module.${name.replace(/^model\./, 'decoder.')}`);
      const found = match(tensors, { slots: slots(false), tied, basePrefix: 'model' });
      expect([...namesOf(found.stored).values()]).toEqual([...tensors.keys()]);
      expect([...namesOf(found.saved)].every(([parameter, name]) => parameter === name)).toBe(true);
      expect(found.warnings).toEqual([expect.stringContaining('"module.decoder." instead of "model.decoder."')]);
    });

    it('for some tensors and not for others they are refused', () => {
      const mixed = renamed((name) => name.replace(/^model\./, name.includes('norm') ? path : 'decoder.'));
      const error = errorOf(() => match(mixed, { slots: slots(false), tied, basePrefix: 'model' }));
      expect(error).toBeInstanceOf(CheckpointError);
      expect(error.message).toMatch(/named in more than one way.*decoder\.embed\.weight.*two saves/);
    });

    it('in two ways they are refused', () => {
      const two = new Map([...files('decoder.'), ...files('')]);
      const error = errorOf(() => match(two, { slots: slots(false), tied, basePrefix: 'model' }));
      expect(error.message).toMatch(/more than once, under different names/);
    });
  });

  it('as they are win over a second copy elsewhere, which is surplus', () => {
    const two = new Map([...whole(), ...renamed((name) => `ema.${name}`)]);
    const { stored, warnings } = match(two);
    expect(stored.get(embed)).toEqual({ name: embed });
    expect(warnings).toEqual([expect.stringMatching(/^5 tensors .*ema\./)]);
  });

  it('that fit in two ways are refused', () => {
    const two = new Map([...renamed((name) => `a.${name}`), ...renamed((name) => `b.${name}`)]);
    expect(errorOf(() => match(two)).message).toMatch(/more than once.*a\.model\..*b\.model\./);
  });

  it('are not believed for a part of the model', () => {
    const tensors = without('model.norm.weight');
    tensors.set('draft.norm.weight', info([4])).set('draft.layers.0.attn.q.weight', info([8, 4]));
    expect(errorOf(() => match(tensors)).message).toMatch(/lacks 1 of 5 tensors: model\.norm\.weight/);
  });

  it('of strangers may be anything', () => {
    const tensors = whole();
    for (const name of ['__proto__', 'constructor', 'toString.weight', 'hasOwnProperty', ''])
      tensors.set(name, info([1]));
    expect(match(tensors).warnings).toEqual([expect.stringMatching(/^5 tensors .*__proto__, constructor/)]);
  });

  it('are matched in time linear in their number', () => {
    const tensors = whole();
    for (let i = 0; i < 40_000; i++) tensors.set(`other.layers.0.attn.q.weight.${i}`, info([1]));
    const started = performance.now();
    match(tensors);
    match(renamed((name) => `module.${name}`, tensors));
    expect(performance.now() - started).toBeLessThan(20_000); // 0.3 s on an idle machine; minutes if it were quadratic
  });
});

describe('tied weights', () => {
  it('that are stored twice are compared', () => {
    expect([...match(whole(), { tie: true }).compare]).toEqual([[head, embed]]);
  });

  it('that are stored once, under either name, are read from there', () => {
    expect(match(without(head), { tie: true }).stored.get(embed)).toEqual({ name: embed });
    const { stored, warnings } = match(without(embed), { tie: true });
    expect([stored.get(embed), stored.has(head)]).toEqual([{ name: head }, false]);
    expect(warnings).toEqual([expect.stringMatching(/embed\.weight is not stored; it is read from head\.weight/)]);
  });

  it('a head that is neither stored nor tied is an error that says what Python does', () => {
    const error = errorOf(() => match(without(head)));
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toMatch(/head\.weight is not stored.*random numbers.*tie_word_embeddings/);
  });

  it('an embedding that is neither stored nor tied is missing', () => {
    expect(errorOf(() => match(without(embed))).message).toMatch(/lacks 1 of 5 tensors: model\.embed\.weight/);
    expect(errorOf(() => match(without(embed, head), { tie: true })).message).toMatch(/lacks 1 of 5/);
  });
});

describe('optional modules', () => {
  const withPooler = (front = '') => [
    ...slotsOf(false),
    linear(`${front}pooler.dense`, [4, 4]),
    tensor(`${front}pooler.dense.bias`, [4]),
  ];
  const more = { optionalModules: ['pooler'], basePrefix: 'model' };

  it.each(['', 'model.'])('may be missing as a whole: "%spooler"', (front) => {
    const found = match(whole(), { slots: withPooler(front), ...more });
    expect(found.without).toEqual(['pooler']);
    expect([...found.stored.keys()]).toEqual([...whole().keys()]);
    expect(found.warnings).toEqual([expect.stringMatching(/has no pooler: the model is without one/)]);
    const tensors = whole()
      .set(`${front}pooler.dense.weight`, info([4, 4]))
      .set(`${front}pooler.dense.bias`, info([4]));
    expect(match(tensors, { slots: withPooler(front), ...more })).toMatchObject({ without: [], warnings: [] });
  });

  it('under other names, too', () => {
    const tensors = renamed((name) => `module.${name}`);
    expect(match(tensors, { slots: withPooler(), ...more }).without).toEqual(['pooler']);
  });

  it('may not be missing in part, nor when an index promises them', () => {
    const part = whole().set('pooler.dense.bias', info([4]));
    expect(errorOf(() => match(part, { slots: withPooler(), ...more })).message).toMatch(
      /lacks 1 of 7.*pooler\.dense\.weight/,
    );
    const absent = new Map([['pooler.dense.weight', 'model-2.safetensors']]);
    expect(errorOf(() => match(whole(), { slots: withPooler(), ...more, absent })).message).toMatch(
      /lacks 2 of 7.*model-2\.safetensors has pooler\.dense\.weight/,
    );
    expect(errorOf(() => match(whole(), { slots: withPooler() })).message).toMatch(/lacks 2 of 7/);
  });
});

describe('what is too much or too little', () => {
  it('surplus is a line, with the first names and their number', () => {
    const tensors = whole();
    for (let i = 0; i < 9; i++) tensors.set(`v_head.${i}\u001b[2J`, info([1]));
    tensors.set('model.layers.0.rotary.inv_freq', info([2]));
    const { warnings } = match(tensors, { ignored: [/inv_freq$/] });
    expect(warnings).toEqual([expect.stringMatching(/^9 tensors .*v_head\.0\\x1b\[2J.*and 4 more$/)]);
  });

  it('a further layer like those of the model is an error; layers of another kind, and parts, are not', () => {
    const layer = (i: number, parts: string[]) =>
      parts.map((part) => [`model.layers.${i}.${part}`, info([1])] as const);
    const error = errorOf(() =>
      match(new Map([...whole(), ...layer(1, ['attn.q.weight', 'mlp.up.weight', 'mlp.up.weight.absmax'])])),
    );
    expect(error.message).toMatch(/more layers than config\.json says: model\.layers\.1 /);
    for (const parts of [['attn.q.weight'], ['attn.q.weight', 'mlp.up.weight', 'eh_proj.weight']])
      expect(match(new Map([...whole(), ...layer(1, parts)])).warnings).toHaveLength(1);
    const elsewhere = renamed((name) => name.replace('model.layers', 'vision.layers'));
    expect(match(new Map([...whole(), ...elsewhere])).warnings).toHaveLength(1);
  });

  it('helpers of quantized weights are not surplus', () => {
    const tensors = whole();
    for (const part of ['absmax', 'quant_map', 'quant_state.bitsandbytes__nf4'])
      tensors.set(`model.layers.0.mlp.up.weight.${part}`, info([1]));
    tensors.set('model.layers.0.mlp.up.weight', info([24, 1], 'u8'));
    tensors.set('model.layers.0.attn.q.SCB', info([8])).set('model.layers.0.attn.q.weight_format', info([], 'u8'));
    expect(match(tensors).warnings).toEqual([]);
  });

  it('names the shard that an index promised', () => {
    const absent = new Map([['model.norm.weight', 'model-2.safetensors']]);
    expect(errorOf(() => match(without('model.norm.weight'), { absent })).message).toMatch(
      /lacks 1 of 5.*model-2\.safetensors has model\.norm\.weight.*not of the same save/,
    );
    expect(match(whole(), { absent: new Map([['mtp.fc', 'model-2.safetensors']]) }).warnings).toEqual([]);
  });

  it.each([
    ['a longer vocabulary', embed, [12, 4]],
    ['another width', 'model.layers.0.mlp.up.weight', [12, 6]],
    ['one dimension', 'model.layers.0.attn.q.weight', [32]],
    ['a scalar', 'model.norm.weight', []],
  ])('%s than config.json says: both shapes are named', (_, name, shape) => {
    const wanted = whole().get(name)!.shape;
    const error = errorOf(() => match(whole().set(name, info(shape))));
    expect(error.message).toContain(`${name} is [${shape.join()}], by config.json [${wanted.join()}]`);
    expect(error.message).toContain('w.safetensors');
  });
});

describe('formats of other libraries', () => {
  const q = 'model.layers.0.attn.q';
  const replaced = (parts: Record<string, StoredTensorInfo>) => {
    const tensors = without(`${q}.weight`);
    for (const [part, stored] of Object.entries(parts)) tensors.set(`${q}.${part}`, stored);
    return tensors;
  };
  it.each([
    ['GPTQ', { qweight: info([1, 8]), qzeros: info([1, 1]), scales: info([1, 8]), g_idx: info([4]) }],
    ['AWQ', { qweight: info([4, 1]), qzeros: info([1, 1]), scales: info([1, 8]) }],
    ['MLX', { weight: info([8, 1], 'U32'), scales: info([8, 1]), biases: info([8, 1]) }],
    ['FP8', { weight: info([8, 4], 'F8_E4M3'), weight_scale_inv: info([1, 1]) }],
    ['FP8', { weight: info([8, 4], 'F8_E4M3') }],
    ['compressed-tensors', { weight_packed: info([8, 1], 'i32'), weight_scale: info([8, 1]), weight_shape: info([2]) }],
    ['HQQ', { W_q: info([8, 1], 'u8'), meta: info([1]) }],
    ['EXL2', { q_weight: info([1, 8]), q_scale: info([1, 1]) }],
    ['Quanto', { 'weight._data': info([8, 4], 'i8'), 'weight._scale': info([8]) }],
  ])('%s is named', (name, parts) => {
    const error = errorOf(() => match(replaced(parts)));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toContain(name);
    expect(error.message).toContain(q);
    expect(errorOf(() => match(renamed((each) => `language_model.${each}`, replaced(parts)))).message).toContain(name);
  });
});
