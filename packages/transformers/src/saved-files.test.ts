import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { isTokenizerFile, tokenizerFiles } from './saved-files.js';
import { temporaryFolders } from './testing.js';

const temporary = temporaryFolders();
const own = [
  'tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json tokenizer.model vocab.json merges.txt',
  'vocab.txt sentencepiece.bpe.model spiece.model chat_template.jinja chat_template.json preprocessor_config.json',
  'processor_config.json video_preprocessor_config.json qwen.tiktoken source.spm target.spm tokenizer.model.v3 tekken.json',
  'additional_chat_templates/rag.jinja additional_chat_templates/tool_use.jinja vocab.bpe encoder.json vocab-src.json',
  'normalizer.json bpe.codes dict.txt',
].flatMap((line) => line.split(' '));
const others = [
  'config.json generation_config.json LICENSE README.md model.safetensors model.safetensors.index.json pytorch_model.bin',
  'training_args.bin adapter_config.json quantize_config.json .hidden.model vocabulary.md tokenizer.json.bak .gitattributes',
  'additional_chat_templates/notes.md additional_chat_templates/.x.jinja',
].flatMap((line) => line.split(' '));

it('finds every file of a tokenizer or a processor, and no other, byte for byte', async () => {
  const folder = await temporary();
  await mkdir(join(folder, 'additional_chat_templates'));
  const bytesOf = (name: string) => Buffer.from(`bytes of ${name}\r\n\0\xff\xfe`, 'latin1');
  for (const name of [...own, ...others]) await writeFile(join(folder, name), bytesOf(name));
  const found = await tokenizerFiles(folder);
  expect([...found.keys()].sort()).toEqual([...own].sort());
  for (const [name, bytes] of found) expect(bytesOf(name).equals(bytes)).toBe(true);
  expect(others.filter(isTokenizerFile)).toEqual([]);
  expect(isTokenizerFile('additional_chat_templates')).toBe(true);
});

it('a folder without any has none', async () => {
  expect((await tokenizerFiles(await temporary())).size).toBe(0);
});
