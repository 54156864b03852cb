import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { visible, visibleJson, visibleText } from './escape.js';
import { paint, print, printTable, writeModelText } from './output.js';
import { q, qJson } from './testing.js';

const hostile = 'w\u001b[31m\u001b]8;;http://x\u0007\u009b2J\u202egnp\u2066\u200b\u2028\r\n\ud800end';
const shown =
  'w\\u{1b}[31m\\u{1b}]8;;http://x\\u{7}\\u{9b}2J\\u{202e}gnp\\u{2066}\\u{200b}\\u{2028}\\u{d}\\u{a}\\u{d800}end';

function captured(action: () => void, { isTTY = false } = {}): string {
  const before = process.stdout.isTTY;
  let text = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((part) => ((text += String(part)), true));
  process.stdout.isTTY = isTTY;
  try {
    action();
  } finally {
    process.stdout.isTTY = before;
    write.mockRestore();
  }
  return text;
}

describe('what a terminal would act on', () => {
  it('is shown in names', () => {
    expect(visible(hostile)).toBe(shown);
    expect(visible('model.layers.0 – größe 模型 🙂')).toBe('model.layers.0 – größe 模型 🙂');
  });

  it('is shown in texts, but for newlines, tabs, joiners and marks', () => {
    expect(visibleText('a\n\tb\rc\u001b[2J\u0085\u202e')).toBe('a\n\tb\\u{d}c\\u{1b}[2J\\u{85}\\u{202e}');
    const words = 'می\u200cخواهم 👩\u200d💻 \u200eשלום';
    expect(visibleText(words)).toBe(words);
  });

  it('is escaped in JSON, which stays the same value', () => {
    const value = { [hostile]: [hostile, '\u{e0041}', 'é'] };
    const json = visibleJson(JSON.stringify(value, null, 2));
    expect(JSON.parse(json)).toEqual(value);
    expect(json.replaceAll('\n', '')).toMatch(/^[\x20-\x7eé]*$/);
  });
});

describe('printing', () => {
  it('escapes lines, coloured parts and cells of tables', () => {
    expect(captured(() => print('name ', hostile))).toBe(`name ${shown}\n`);
    expect(captured(() => print(paint.red(hostile)))).toContain(shown);
    expect(captured(() => printTable(['a'], [[hostile]]))).toContain(shown);
  });

  it('gives what a model writes to a pipe as it is, and without control sequences to a terminal', () => {
    const text = '\u001b[2Jone\n\ttwo';
    expect(captured(() => writeModelText(text))).toBe(text);
    expect(captured(() => writeModelText(text), { isTTY: true })).toBe('\\u{1b}[2Jone\n\ttwo');
  });
});

describe('commands', () => {
  let folder = '';
  afterEach(() => rm(folder, { recursive: true, force: true }));

  /** A checkpoint of one tensor. */
  async function checkpoint(tensor: string, modelType: string): Promise<string> {
    folder = await mkdtemp(join(tmpdir(), 'q-escape-'));
    const header = Buffer.from(JSON.stringify({ [tensor]: { dtype: 'F32', shape: [1], data_offsets: [0, 4] } }));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    await writeFile(join(folder, 'model.safetensors'), Buffer.concat([length, header, Buffer.alloc(4)]));
    await writeFile(join(folder, 'config.json'), JSON.stringify({ model_type: modelType }));
    return folder;
  }
  const raw = /[^\n\x20-\x7e]/; // nothing else comes out of these

  it('inspect shows hostile names', async () => {
    const name = 'a\u001b[8m\u009b31m\nfake: line.weight';
    const path = await checkpoint(name, 'lla\u001bma');
    const { code, stdout } = await q(['inspect', path, '--modules'], { env: { FORCE_COLOR: '0' } });
    expect(code).toBe(0);
    expect(stdout).not.toMatch(raw);
    expect(stdout).toContain('a\\u{1b}[8m\\u{9b}31m\\u{a}fake: line');
    expect(stdout).toContain('lla\\u{1b}ma');
    const json = await q(['inspect', path, '--json']);
    expect(json.stdout).not.toMatch(raw);
    const { modules } = await qJson<{ modules: { entries: { name: string }[] }[] }>('inspect', path);
    expect(modules[0].entries[0].name).toBe(name);
  });

  it.each([[[]], [['--verbose']], [['--json']]])('errors show hostile names (%j)', async (flags) => {
    const path = await checkpoint('w', 'lla\u001b]0;x\u0007\u202ema');
    const { code, stderr } = await q(['run', path, '-p', 'x', ...flags]);
    expect(code).toBe(1);
    expect(stderr).not.toMatch(raw);
    expect(stderr).toMatch(/lla\\+u\{?(001b|1b)/);
  });
});
