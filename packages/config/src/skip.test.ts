import { expect, test } from 'vitest';
import { ConfigError } from './errors.js';
import { skipRule, unmatchedLine } from './skip.js';

const parts = ['self_attn.q_proj', 'self_attn.o_proj', 'mlp.up_proj', 'mlp.down_proj'];
const paths = [...[0, 1, 10].flatMap((i) => parts.map((part) => `model.layers.${i}.${part}`)), 'lm_head'];
const skipped = (...patterns: string[]) => paths.filter((path) => skipRule(patterns).skips(path)).length;

// The numbers are those of Python: re.match(pattern, path) or path.endswith(pattern).
test.each([
  ['lm_head', 1],
  ['lm', 1],
  ['head', 1],
  ['q_proj', 3],
  ['model.layers.1', 8],
  ['model.layers.1.', 8],
  [String.raw`model\.layers\.1\.`, 4],
  ['modelXlayers.1', 0],
  ['.*q_proj', 3],
  ['model.layers.*.mlp', 6],
  ['.*(q|o)_proj$', 6],
  [String.raw`model\.layers\.\d\.`, 8],
  [String.raw`model\.layers\.\d+\.mlp\.(?P<which>up|down)_proj\Z`, 6],
  ['model.layers.[0-9]{,1}.mlp', 4],
  ['model.layers.[0-9]{2}.mlp', 2],
  ['(?i)MODEL.LAYERS.0', 4],
  ['', 13],
  ['mlp', 0],
  ['self_attn', 0],
  ['nothing|lm', 1],
  ['(?!lm)', 12],
  [String.raw`model\.layers\.(?!1\.).*`, 8],
  [String.raw`.*(?<!down)_proj\Z`, 9],
  [String.raw`model\.layers\.\d+(?=\.mlp)`, 6],
  [String.raw`model\.layers\.(\d)(\d)?\.(?!.*\1).*q_proj`, 3],
  ['(?P<n>l)(?:m_head|m_(?P=n))', 1],
  ['(?>model|mod).l', 12],
  ['(lm)?(?(1)_head|model)', 13],
])('%s skips %i', (pattern, expected) => {
  expect(skipped(pattern)).toBe(expected);
});

test('several patterns, and those that match nothing', () => {
  expect(skipped('lm_head', 'q_proj')).toBe(4);
  expect(skipped()).toBe(0);
  const rule = skipRule(['lm_head', 'mlp', '.*gate_proj', 'model.layers.10']);
  expect(rule.unmatched(paths)).toEqual(['mlp', '.*gate_proj']);
  expect(unmatchedLine(rule.unmatched(paths))).toMatch(
    /^llmInt8SkipModules: mlp, .\*gate_proj matches no linear layer/,
  );
  expect(unmatchedLine([])).toBeUndefined();
});

test('what is no expression is one neither here', () => {
  const wrong = [
    '(q_proj',
    '*q_proj',
    '[a-',
    'a{2,1}',
    'a**',
    '(?<=a+)b',
    String.raw`(?=a)\2`,
    '(?P=n)',
    '(?!a',
    '(?x)(?=a)',
  ];
  for (const pattern of wrong) expect(() => skipRule([pattern]), pattern).toThrow(/is no regular expression/);
});

test('patterns that go back end', () => {
  const started = performance.now();
  const long = `model.layers.0.${'a'.repeat(400)}!`;
  for (const pattern of [
    String.raw`model\.layers\.0\.(?=(a+)+$)`,
    String.raw`(?!x)(.*)*\1x`,
    '(?=a)|(m|mo|mod|.)*(?!.)x',
  ]) {
    const rule = skipRule([pattern]);
    try {
      rule.skips(long);
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError);
      expect((error as Error).message).toMatch(/takes too long on .*(steps|too deep)/);
    }
  }
  const deep = skipRule(['(?=m)(?:.(?=.))*']);
  expect(() => deep.skips('m'.repeat(90_000))).toThrow(ConfigError);
  expect(performance.now() - started).toBeLessThan(5000);
});

test('patterns of exponential time or size are harmless', () => {
  const long = `${'a'.repeat(5000)}!`;
  const started = performance.now();
  for (const pattern of ['(a+)+$', '(a|a)*$', '(.*)*x', '(a?){30}a{30}$', '([a-z]+)*_']) {
    const rule = skipRule([pattern]);
    rule.skips(long);
    rule.unmatched(paths);
  }
  expect(performance.now() - started).toBeLessThan(5000);
  for (const pattern of [
    '((a{1000}){1000}){1000}',
    'a{1001}',
    `${'('.repeat(60)}a${')'.repeat(60)}`,
    `a+${'b'.repeat(2000)}`,
  ])
    expect(() => skipRule([pattern])).toThrow(/too large/);
});

test.each([
  ['alternatives', '(?:||)', '$'],
  ['groups', '(|)', String.raw`\Z`],
  ['looks', '(?:(?=)|(?=))', '$'],
  ['starts', '(?:^|^|^)', '$'],
  ['edges', String.raw`(?:\b|\b)`, String.raw`\B`],
  ['conditionals', '(?:(?(1)|)|(?(1)|))', '$'],
])('%s that take no character count as steps', (_, part, end) => {
  const pattern = `(?!zz)(x)?${part.repeat(40)}${end}`;
  const started = performance.now();
  expect(() => skipRule([pattern]).skips(paths[0])).toThrow(/takes too long on/);
  expect(performance.now() - started).toBeLessThan(5000);
});

test('lists of patterns are bounded together', () => {
  const modules = Array.from({ length: 70_000 }, (_, i) => `model.layers.${i}.self_attn.q_proj`);
  const named = (count: number, name: (i: number) => string) => Array.from({ length: count }, (_, i) => name(i));
  const started = performance.now();
  for (const patterns of [
    named(1000, (i) => `model.layers.x${i}`),
    named(1000, (i) => `(model|encoder).*x${i}`),
    ['(?=m)(?:.*.*.*)$zz'],
  ]) {
    const rule = skipRule(patterns);
    expect(() => modules.filter((path) => rule.skips(path)), patterns[0]).toThrow(/too long on all modules together/);
  }
  expect(() => skipRule(named(1000, (i) => `model.x${i}`)).unmatched(modules)).toThrow(ConfigError);
  expect(() => skipRule(named(1000, (i) => `((model|x).*){20}x${i}`))).toThrow(/too large together/);
  expect(performance.now() - started).toBeLessThan(60_000);
}, 90_000);

test('naming every layer of a large model stays within the limits, however often it is asked', () => {
  const modules = Array.from({ length: 2000 }, (_, i) => `model.layers.${i}.mlp.up_proj`);
  const rule = skipRule([...modules, String.raw`(?!lm)model\.layers\.\d+\.mlp\.(up|down)_proj`]);
  for (let i = 0; i < 20; i++) expect(modules.every((path) => rule.skips(path))).toBe(true);
  expect(rule.unmatched(modules)).toEqual([]);
});
