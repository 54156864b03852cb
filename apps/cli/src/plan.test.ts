import { copyFile, cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nanoFolder } from '@q/transformers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { q, qJson } from './testing.js';

interface PlanJson {
  deviceMap: Record<string, number | string>;
  usage: { device: number | string; budget: number; weights: number; kvCache: number; free: number }[];
  size: number;
  placements?: { module: string; because: string }[];
}

const llama7b = {
  model_type: 'llama',
  vocab_size: 32000,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  hidden_act: 'silu',
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  torch_dtype: 'float16',
};

let folder: string;
let config: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'q-plan-'));
  config = join(folder, 'config.json');
  await writeFile(config, JSON.stringify(llama7b));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('q plan', () => {
  it('spreads Llama 2 7B over two GPUs from its config alone, within the budgets', async () => {
    const plan = await qJson<PlanJson>('plan', config, '--max-memory', '0=10GiB,1=10GiB,cpu=30GiB');
    expect(plan.size).toBe(2 * 6_738_415_616 + 2 * 64 * 4);
    expect(new Set(Object.values(plan.deviceMap))).toEqual(new Set([0, 1]));
    for (const { budget, weights, free } of plan.usage) expect([weights <= budget, free >= 0]).toEqual([true, true]);
  });

  it('keeps room for the cache: 2 x 32 heads x 128 x 2 bytes a token and layer', async () => {
    const plan = await qJson<PlanJson>('plan', config, '--max-memory', '0=40GiB', '--context', '4096', '--batch', '4');
    expect(plan.usage[0].kvCache).toBe(2 * 32 * 128 * 2 * 32 * 4096 * 4);
  });

  it("plans with the checkpoint's own quantization, and refuses a context that the model does not reach", async () => {
    const stored = join(folder, 'nf4.json');
    const quantization_config = { quant_method: 'bitsandbytes', load_in_4bit: true, bnb_4bit_quant_type: 'nf4' };
    await writeFile(stored, JSON.stringify({ ...llama7b, quantization_config }));
    const budget = ['--max-memory', '0=40GiB'];
    const plan = await qJson<PlanJson>('plan', stored, ...budget);
    expect(plan.size).toBe((await qJson<PlanJson>('plan', config, '--load-in-4bit', ...budget)).size);
    expect((await q(['plan', stored, '--load-in-8bit', ...budget])).stderr).toMatch(/quantized already, with nf4/);
    expect((await q(['plan', config, '--skip-modules', 'lm_head', ...budget])).stderr).toMatch(
      /--skip-modules without/,
    );
    expect((await q(['plan', config, '--context', '4097', ...budget])).stderr).toMatch(/the model reaches 4096 tokens/);
    const unmatched = await q(['plan', config, '--load-in-4bit', '--skip-modules', 'mlp', ...budget]);
    expect([unmatched.code, unmatched.stderr]).toEqual([0, expect.stringMatching(/warning: .*mlp matches no linear/)]);
  });

  it('plans a folder by its weights, and a config.json by itself', async () => {
    const model = join(folder, 'left-over');
    await cp(nanoFolder(), model, { recursive: true });
    const file = join(model, 'config.json');
    const left = { quant_method: 'bitsandbytes', load_in_8bit: true };
    const own = JSON.parse(await readFile(file, 'utf8')) as object;
    await writeFile(file, JSON.stringify({ ...own, quantization_config: left }));
    const budget = ['--max-memory', '0=1GiB'];
    const { size } = await qJson<PlanJson>('plan', '@q/nano', ...budget);
    expect((await qJson<PlanJson>('plan', model, ...budget)).size).toBe(size);
    expect((await qJson<PlanJson>('plan', file, ...budget)).size).toBeLessThan(size);
    const { code, stderr } = await q(['plan', model, ...budget]);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/^warning: .*llm_int8, but no weight is quantized/)]);
  });

  it('--ignore-config-key reads config.json without a key', async () => {
    const odd = join(folder, 'odd.json');
    const rope_scaling = { type: 'dynamic', factor: 2, alpha: 3 };
    await writeFile(odd, JSON.stringify({ ...llama7b, logit_scale: 2, rope_scaling }));
    const args = ['plan', odd, '--max-memory', '0=40GiB'];
    const refused = await q(args);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/logit_scale.*--ignore-config-key/)]);
    const keys = ['--ignore-config-key', 'logit_scale', '--ignore-config-key', 'rope_scaling.alpha'];
    const { code, stderr } = await q([...args, ...keys]);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/warning: .*logit_scale is ignored/)]);
  });

  it('refuses 8-bit modules on the cpu unless --offload allows them, and draws the plan it refuses', async () => {
    const args = ['plan', config, '--load-in-8bit', '--max-memory', '0=4GB,cpu=30GiB'];
    const refused = await q(args);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/--offload/);
    expect(refused.stderr).not.toMatch(/quantizedOffload|llmInt8/);
    const custom = await q([
      'plan',
      config,
      '--load-in-8bit',
      '--max-memory',
      '0=40GB,cpu=30GiB',
      '--device-map',
      '{"model":0,"lm_head":"cpu"}',
    ]);
    expect([custom.code, custom.stderr]).toEqual([1, expect.stringMatching(/--offload/)]);
    const { deviceMap } = await qJson<PlanJson>(...args, '--offload');
    expect(Object.values(deviceMap)).toContain('cpu');
  });

  it('runs the commands of the README as they are written', async () => {
    const repository = fileURLToPath(new URL('../../..', import.meta.url));
    const readme = await readFile(join(repository, 'README.md'), 'utf8');
    await copyFile(join(repository, 'docs/examples/llama-2-7b.json'), join(folder, 'copied.json'));
    const commands = [...readme.matchAll(/^npm run (-s )?q -- (plan config\.json .*?)(?:\s+#.*)?$/gm)];
    expect(commands).toHaveLength(3);
    for (const [, silent, text] of commands) {
      const args = text.replace('config.json', join(folder, 'copied.json'));
      const words = [...args.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, word]) => quoted ?? word);
      const { code, stdout, stderr } = await q(words);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      if (words.includes('--json')) expect(JSON.parse(stdout)).toHaveProperty('deviceMap');
      expect(words.includes('--json')).toBe(silent !== undefined);
    }
  });

  it('explains every module', async () => {
    const { placements } = await qJson<PlanJson>('plan', config, '--max-memory', '0=10GiB,1=10GiB', '--explain');
    expect(placements!.length).toBeGreaterThan(30);
    const { stdout } = await q(['plan', config, '--max-memory', '0=10GiB,1=10GiB', '--explain']);
    expect(stdout).toContain('model.layers.0');
  });

  it('plans a module tree given as data', async () => {
    const tree = join(folder, 'tree.json');
    await writeFile(
      tree,
      JSON.stringify({
        modules: [
          ['', 'Model'],
          ['a', 'Linear', [['weight', [100]]]],
          ['b', 'Linear', [['weight', [100]]]],
          ['c', 'Linear', [['weight', [100]]]],
        ],
      }),
    );
    const { deviceMap } = await qJson<PlanJson>(
      'plan',
      tree,
      '--max-memory',
      '0=900,1=900',
      '--device-map',
      'sequential',
      '--dtype',
      'float32',
    );
    expect(deviceMap).toEqual({ a: 0, b: 1, c: 1 });
  });

  it.each([
    [['--max-memory', 'nonsense'], /no budget/],
    [['--batch', '2'], /--batch without --context/],
    [['--max-memory', '0=1GiB', '--device-map', '{'], /no valid JSON/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await q(['plan', config, ...args]);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
  });
});
