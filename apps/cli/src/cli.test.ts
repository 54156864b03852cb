import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixture, q, qJson } from './testing.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'q-cli-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const prompt = 'export function add(a, b) {';

describe('help', () => {
  it.each([[], ['run'], ['eval'], ['quantize'], ['inspect'], ['plan'], ['bench'], ['doctor'], ['demo']])(
    'of q %s',
    async (...command) => {
      const { code, stdout, stderr } = await q([...command, '--help']);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatchSnapshot();
    },
  );
});

describe('run', () => {
  interface Run {
    text: string;
    newTokens: number[];
    finishReason: string;
    quantization: string;
    stats: { promptTokens: number; newTokens: number; decodeTokensPerSecond: number };
  }

  it('streams the text that --json gives, and statistics on stderr', async () => {
    const json = await qJson<Run>('run', '--prompt', prompt, '-n', '12');
    expect(json).toMatchObject({ quantization: 'bf16', finishReason: 'length', stats: { newTokens: 12 } });
    expect(json.newTokens).toHaveLength(12);
    expect(json.stats.decodeTokensPerSecond).toBeGreaterThan(0);
    const { stdout, stderr } = await q(['run', '-n', '12'], { input: prompt });
    expect(stdout).toBe(`${json.text}\n`);
    expect(stderr).toMatch(/^load .* prompt \d+ tokens at .* 12 new tokens at .* tok\/s\n$/);
  });

  it('samples the same text from the same seed', async () => {
    const sampled = (seed: string) =>
      qJson<Run>(
        'run',
        '-p',
        prompt,
        '-n',
        '24',
        '--temperature',
        '1.2',
        '--top-k',
        '50',
        '--top-p',
        '0.95',
        '--min-p',
        '0.01',
        '--repetition-penalty',
        '1.1',
        '--seed',
        seed,
      );
    const [first, again, other] = [await sampled('7'), await sampled('7'), await sampled('8')];
    expect(again.text).toBe(first.text);
    expect(other.text).not.toBe(first.text);
  });

  it('takes temperature 0 for greedy decoding, and none below', async () => {
    const run = (...flags: string[]) => qJson<Run>('run', '-p', prompt, '-n', '8', ...flags);
    expect((await run('--temperature', '0')).newTokens).toEqual((await run()).newTokens);
    const { code, stderr } = await q(['run', '-p', prompt, '--temperature', '-0.5']);
    expect(code).toBe(1);
    expect(stderr).toContain('It must be a number of 0 or more.');
  });

  it('ends at a stop text', async () => {
    const { text, finishReason } = await qJson<Run>(
      'run',
      '-p',
      prompt,
      '-n',
      '64',
      '--stop',
      'return',
      '--load-in-4bit',
    );
    expect(finishReason).toBe('stop');
    expect(text).not.toContain('return');
  });

  it('ends soon after Ctrl-C', async () => {
    const { code, stderr } = await q(['run', '-p', 'const', '-n', '1900'], { interruptAfter: '\n' });
    expect({ code, stderr }).toEqual({ code: 130, stderr: '' });
  });
});

describe('eval', () => {
  it('scores windows and is worse in 4 bit', async () => {
    const args = ['eval', '--text', fixture('documents.json'), '--window', '64', '--windows', '3'];
    const full = await qJson<{ perplexity: number; tokens: number; scoredTokens: number; seconds: number }>(...args);
    const quantized = await qJson<{ perplexity: number; quantization: string }>(
      ...args,
      '--load-in-4bit',
      '--quant-type',
      'fp4',
      '--double-quant',
    );
    expect(full).toMatchObject({ quantization: 'bf16', windows: 3, window: 64, tokens: 192, scoredTokens: 189 });
    expect(full.perplexity).toBeGreaterThan(2);
    expect(full.perplexity).toBeLessThan(20);
    expect(quantized.quantization).toBe('fp4 double quant');
    expect(quantized.perplexity).toBeGreaterThan(full.perplexity);
    const { stdout, stderr } = await q(args);
    expect(stdout).toContain(full.perplexity.toFixed(5));
    expect(stderr).toBe('');
  });

  it('computes step by step with --numerics eager: other roundings, the same text', async () => {
    const args = ['eval', '--text', fixture('documents.json'), '--window', '64', '--windows', '1'];
    const fused = await qJson<{ perplexity: number; numerics: string }>(...args);
    const eager = await qJson<{ perplexity: number; numerics: string }>(...args, '--numerics', 'eager');
    expect([fused.numerics, eager.numerics]).toEqual(['fused', 'eager']);
    expect(eager.perplexity).not.toBe(fused.perplexity);
    expect(Math.abs(eager.perplexity / fused.perplexity - 1)).toBeLessThan(0.02);
  });

  it('takes a text file', async () => {
    const file = join(folder, 'code.txt');
    await writeFile(file, 'module.exports = (a, b) => a + b;\n'.repeat(20));
    expect(await qJson('eval', '--text', file, '--window', '32', '--windows', '2')).toMatchObject({
      windows: 2,
      tokens: 64,
    });
  });
});

describe('quantize and inspect', () => {
  it('writes a smaller model that loads again and continues as the one quantized on load', async () => {
    const out = join(folder, 'nano-nf4');
    const saved = await qJson<{ bytesBefore: number; bytesAfter: number; files: string[] }>(
      'quantize',
      '@q/nano',
      out,
      '--load-in-4bit',
      '--double-quant',
    );
    expect(saved).toMatchObject({ quantization: 'nf4 double quant', layers: { nf4: 56 } });
    expect(saved.bytesAfter).toBeLessThan(0.4 * saved.bytesBefore);
    expect((await readdir(out)).sort()).toEqual(
      expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json']),
    );
    expect(await qJson('inspect', out)).toMatchObject({
      modelType: 'llama',
      parameters: 7344384,
      bytes: saved.bytesAfter,
      quantization: { method: 'bitsandbytes' },
    });
    expect(await qJson('inspect', join(out, 'model.safetensors'))).toMatchObject({ bytes: saved.bytesAfter });
    const run = ['run', '--prompt', prompt, '-n', '16'];
    const [again, direct] = [
      await qJson<{ text: string }>('run', out, ...run.slice(1)),
      await qJson<{ text: string }>(...run, '--load-in-4bit', '--double-quant'),
    ];
    expect(again.text).toBe(direct.text);
  });

  it('shows what nano holds', async () => {
    expect(await qJson('inspect')).toMatchObject({
      parameters: 7344384,
      bytes: 14688768,
      dtypes: { bf16: { tensors: 74 } },
    });
    const { stdout } = await q(['inspect', '@q/nano']);
    expect(stdout).toContain('model.layers.*.mlp.up_proj');
    expect((await q(['inspect', '@q/nano', '--modules'])).stdout).toContain('model.layers.7.mlp.up_proj');
  });
});

describe('bench', () => {
  it('measures a tiny shape', async () => {
    interface Bench {
      prefill: { tokensPerSecond: number; shareOfPeak: number };
      decode: {
        tokensPerSecond: number;
        weightBytesPerStep: number;
        shareOfBandwidth: number;
        bytesPerSecond: number;
        stepMs: number;
      };
      peaks: { readBytesPerSecond: number };
      eventLoop: { loading: { p99Ms: number }; generating: { p99Ms: number } };
      machine: { versions: { node: string } };
    }
    const result = await qJson<Bench>(
      'bench',
      '--shape',
      fixture('tiny-shape.json'),
      '--load-format',
      'dummy',
      '--load-in-8bit',
      '--prompt-tokens',
      '32',
      '--new-tokens',
      '8',
      '--batch',
      '2',
      '--repeat',
      '1',
    );
    expect(result).toMatchObject({ quantization: 'int8', batch: 2, promptTokens: 32, newTokens: 8 });
    // 2 layers: q, o [128, 128]; k, v [64, 128]; gate, up, down [256, 128] with an f32 scale per row, 5 norms and the
    // bf16 head.
    const linears = 2 * (2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128);
    const scales = 2 * 4 * (2 * 128 + 2 * 64 + 2 * 256 + 128);
    expect(result.decode.weightBytesPerStep).toBe(linears + scales + 5 * 128 * 2 + 512 * 128 * 2);
    expect((result.decode.bytesPerSecond * result.decode.stepMs) / 1000).toBeCloseTo(
      result.decode.weightBytesPerStep,
      0,
    );
    for (const positive of [
      result.prefill.tokensPerSecond,
      result.prefill.shareOfPeak,
      result.decode.tokensPerSecond,
      result.decode.shareOfBandwidth,
    ])
      expect(positive).toBeGreaterThan(0);
    expect(result.peaks.readBytesPerSecond).toBeGreaterThan(1e9);
    expect(result.eventLoop.generating.p99Ms).toBeGreaterThan(0);
    expect(result.machine.versions.node).toBe(process.version);
  });
});

describe('doctor and demo', () => {
  it('doctor finds the addon', async () => {
    expect(await qJson('doctor')).toMatchObject({ node: process.version, addon: { loaded: true }, problems: [] });
    expect((await q(['doctor'])).stdout).toContain('No problems found.');
  });

  it('demo shows placement, footprint and a completion', async () => {
    const json = await qJson<{ text: string; memoryFootprint: number }>('demo', '-n', '16');
    expect(json).toMatchObject({ hfDeviceMap: { '': 'cpu' }, quantization: 'nf4', linears: { nf4: 56 } });
    expect(json.memoryFootprint).toBeLessThan(6e6);
    const { stdout } = await q(['demo', '-n', '16']);
    for (const part of ['{"":"cpu"}', 'nf4', json.text, 'tok/s']) expect(stdout).toContain(part);
  });
});

describe('errors', () => {
  it.each([
    [['rnu'], "unknown command 'rnu'"],
    [['run', '--promt', 'x'], '(Did you mean --prompt?)'],
    [['run', '--top-p', '2', '-p', 'x'], 'It must be a number from 0 to 1.'],
    [['run', 'no-such-folder', '-p', 'x'], 'no-such-folder'],
    [['run', '-p', 'x', '--load-in-4bit', '--load-in-8bit'], '--load-in-4bit and --load-in-8bit are both given'],
    [['run', '-p', 'x', '--double-quant'], '--double-quant without --load-in-4bit'],
    [['run', '-p', 'x', '--chat'], 'no chat template'],
    [['run', '-p', 'x', '--device', 'cpu:7'], 'cpu:7'],
    [['eval'], "required option '--text <file>'"],
    [['eval', '--text', 'missing.json'], 'cannot read missing.json'],
    [['eval', '--text', fixture('tiny-shape.json')], 'does not hold a list of strings'],
    [['eval', '--text', fixture('documents.json'), '--window', '100000'], 'less than one window'],
    [['quantize', '@q/nano', 'out'], 'no quantization is given'],
    [['bench'], 'give a model or --shape'],
    [['bench', '--shape', 'llama-8b'], 'llama-7b, tinyllama-1.1b'],
  ])('q %j', async (args, message) => {
    const { code, stdout, stderr } = await q(args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr).not.toContain('    at ');
  });

  it.each([
    [['run', '--promt', 'x'], { code: 'usage', message: expect.stringContaining("unknown option '--promt'") }],
    [['run', '--top-p', '2'], { code: 'usage', fields: { rule: 'commander.invalidArgument' } }],
    [['rnu'], { code: 'usage' }],
    [['plan'], { code: 'usage', message: "missing required argument 'model'" }],
    [['eval'], { code: 'usage' }],
    [['bench'], { code: 'config', op: 'bench', fields: {} }],
    [['eval', '--text', 'missing.json'], { code: 'config', op: 'eval' }],
    [['plan', 'missing.json'], { code: 'config', op: 'plan' }],
    [['inspect', 'no-such-folder', '--local-files-only'], { code: 'checkpoint', fields: { id: 'no-such-folder' } }],
    [['quantize', '@q/nano', 'out'], { code: 'config', message: expect.stringContaining('no quantization is given') }],
    [['run', '-p', 'x', '--device', 'cpu:7'], { code: expect.any(String), op: expect.any(String) }],
  ])('q %j --json is one line of JSON', async (args, error) => {
    const { code, stdout, stderr } = await q([...args, '--json']);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^\{.*\}\n$/);
    const report = JSON.parse(stderr) as { error: Record<string, unknown> };
    expect(report.error).toMatchObject(error);
    expect(Object.keys(report.error).sort()).toEqual(['code', 'fields', 'message', 'op']);
  });

  it('prints the stack with --verbose', async () => {
    const { code, stderr } = await q(['run', 'no-such-folder', '-p', 'x', '--verbose']);
    expect(code).toBe(1);
    expect(stderr).toContain('    at ');
  });
});
