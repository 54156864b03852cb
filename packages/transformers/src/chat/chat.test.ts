import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { CheckpointError, ConfigError } from '@q/config';
import { afterAll, describe, expect, it } from 'vitest';
import { AutoTokenizer } from '../tokenizer/load.js';
import { Tokenizer } from '../tokenizer/tokenizer.js';
import type { ChatMessage } from './options.js';
import { encodePrompt, messageIds } from './prompt.js';

// A tokenizer of single characters with <s> before every text.
const words = ['<s>', '</s>', ...'abcdefghij[] '];
const tokenizerJson = {
  version: '1.0',
  added_tokens: ['<s>', '</s>'].map((content, id) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  })),
  normalizer: null,
  pre_tokenizer: null,
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] } },
  },
  decoder: null,
  model: { type: 'BPE', unk_token: null, vocab: Object.fromEntries(words.map((word, i) => [word, i])), merges: [] },
};
const config = { bos_token: '<s>', eos_token: { content: '</s>' }, pad_token: null };
const make = (extra: object = {}) => new Tokenizer(tokenizerJson, { ...config, ...extra });
const hi: ChatMessage[] = [{ role: 'user', content: 'hi' }];
const template =
  '{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}a{% endif %}';

const root = mkdtempSync(join(tmpdir(), 'q-chat-'));
afterAll(() => rmSync(root, { recursive: true }));
let count = 0;
function folder(files: Record<string, string | object>): string {
  const path = join(root, String(count++));
  for (const [name, content] of Object.entries({ 'tokenizer.json': tokenizerJson, ...files })) {
    mkdirSync(dirname(join(path, name)), { recursive: true });
    writeFileSync(join(path, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return path;
}
const load = (files: Record<string, string | object>) => AutoTokenizer.fromPretrained(folder(files));
const named = (names: Record<string, string>) =>
  Object.entries(names).map(([name, text]) => ({ name, template: text }));

describe('where templates come from', () => {
  it.each<[string, Record<string, string | object>, string]>([
    ['the config', { 'tokenizer_config.json': { chat_template: 'C' } }, 'C'],
    ['a file, before the config', { 'chat_template.jinja': 'F', 'tokenizer_config.json': { chat_template: 'C' } }, 'F'],
    ['the older file of processors', { 'chat_template.json': { chat_template: 'P' } }, 'P'],
    [
      'the config, before that',
      { 'chat_template.json': { chat_template: 'P' }, 'tokenizer_config.json': { chat_template: 'C' } },
      'C',
    ],
    ['a file beside named ones', { 'chat_template.jinja': 'F', 'additional_chat_templates/rag.jinja': 'R' }, 'F'],
    ['an object of names', { 'tokenizer_config.json': { chat_template: { default: 'D', rag: 'R' } } }, 'D'],
  ])('%s', async (_, files, expected) => expect((await load(files)).applyChatTemplate(hi)).toBe(expected));

  it('names pick from the folder of templates', async () => {
    const tokenizer = await load({
      'additional_chat_templates/rag.jinja': 'R\r\nr',
      'additional_chat_templates/tool_use.jinja': 'T',
    });
    expect(tokenizer.applyChatTemplate(hi, { chatTemplate: 'rag' })).toBe('R\nr');
    expect(tokenizer.applyChatTemplate(hi, { tools: [] })).toBe('T');
    expect(() => tokenizer.applyChatTemplate(hi)).toThrow(/rag, tool_use/);
  });

  it('tools take the default where there is no tool_use, and names win over tools', () => {
    const tokenizer = make({ chat_template: named({ default: 'D', x: 'X' }) });
    expect(tokenizer.applyChatTemplate(hi, { tools: [{ a: 1 }] })).toBe('D');
    expect(
      make({ chat_template: named({ default: 'D', tool_use: 'T' }) }).applyChatTemplate(hi, {
        chatTemplate: 'default',
        tools: [{}],
      }),
    ).toBe('D');
  });

  it('a text is a template, and an unknown name is an error that lists the names', () => {
    const tokenizer = make({ chat_template: named({ default: 'D', x: 'X' }) });
    expect(tokenizer.applyChatTemplate(hi, { chatTemplate: '{{ messages | length }}' })).toBe('1');
    expect(() => tokenizer.applyChatTemplate(hi, { chatTemplate: 'rga' })).toThrow(/"rga".*default, x/);
    expect(() => make().applyChatTemplate(hi)).toThrow(/no chat template/);
  });

  it.each([[[1]], [[{ name: 'a' }]], 7, { a: 1 }])('%j is no template', (chatTemplate) =>
    expect(() => make({ chat_template: chatTemplate }).applyChatTemplate(hi)).toThrow(CheckpointError),
  );
});

describe('what a template is given', () => {
  const show = (chatTemplate: string, options: object = {}) =>
    make().applyChatTemplate(hi, { chatTemplate, ...options });

  it('special tokens, none for tools and documents, and the variables', () => {
    expect(show('{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ tools }}{{ documents is none }}')).toBe(
      '<s></s>FalseNoneTrue',
    );
    expect(
      show('{{ enable_thinking }}{{ bos_token }}', { variables: { enable_thinking: false, bos_token: 'B' } }),
    ).toBe('FalseB');
    expect(show('{{ tools | tojson }}', { variables: { tools: [{ a: 1 }] } })).toBe('[{"a": 1}]');
    expect(show('{{ add_generation_prompt }}')).toBe('True');
    expect(
      show('{{ add_generation_prompt }}', {
        continueFinalMessage: true,
        chatTemplate: '{{ add_generation_prompt }}{{ messages[0].content }}',
      }),
    ).toBe('Falsehi');
  });

  it('is left open behind a field', () => {
    const messages = [{ role: 'assistant', content: '', thinking: 'so ' }];
    const chatTemplate = '<{{ messages[0].thinking.strip() }}>';
    expect(make().applyChatTemplate(messages, { chatTemplate, continueFinalMessage: 'thinking' })).toBe('<so');
    expect(() =>
      make().applyChatTemplate(messages, { chatTemplate: '{# content #}', continueFinalMessage: true }),
    ).toThrow(/not in the rendered text/);
  });

  it('several conversations give several prompts, and tokenize gives ids', () => {
    const tokenizer = make({ chat_template: template });
    expect(tokenizer.applyChatTemplate([hi, [...hi, ...hi]])).toEqual(['<s>[hi]a', '<s>[hi][hi]a']);
    const text: ChatMessage[] = [{ role: 'user', content: 'ab' }];
    expect(tokenizer.applyChatTemplate(text, { tokenize: true })).toEqual([0, 12, 2, 3, 13, 2]);
    expect(tokenizer.applyChatTemplate([text], { tokenize: true })).toEqual([[0, 12, 2, 3, 13, 2]]);
  });
});

describe('wrong calls are errors in the words of the caller', () => {
  const tokenizer = make({ chat_template: template });
  const call = (messages: unknown, options?: object) => () =>
    tokenizer.applyChatTemplate(messages as ChatMessage[], options);

  it.each<[unknown, RegExp]>([
    ['hi', /messages must be a list, not a string/],
    [undefined, /messages must be a list/],
    [{ role: 'user', content: 'x' }, /messages must be a list/],
    [[], /messages is empty/],
    [[[]], /messages\[0\] is empty/],
    [[hi, hi[0]], /messages\[1\] must be a list/],
    [['hi'], /messages\[0\] must be an object/],
    [[{ content: 'x' }], /messages\[0\].role/],
    [[{ role: 'user', content: 5 }], /messages\[0\].content/],
    [[{ role: 'user', content: 'x', y: Symbol('s') }], /messages\[0\].y/],
  ])('%o', (messages, message) => {
    expect(call(messages)).toThrow(ConfigError);
    expect(call(messages)).toThrow(message);
  });

  it.each<[object, RegExp]>([
    [{ add_generation_prompt: true }, /addGenerationPrompt/],
    [{ addGenerationPrompt: 'yes' }, /addGenerationPrompt must be a boolean/],
    [{ tools: {} }, /tools must be a list of objects/],
    [{ tools: [() => 1] }, /tools must be a list of objects/],
    [{ documents: ['x'] }, /documents must be a list of objects/],
    [{ chatTemplate: 5 }, /chatTemplate must be/],
    [{ variables: [] }, /variables must be an object/],
    [{ variables: { messages: [] } }, /variables holds messages/],
    [{ tools: [], variables: { tools: [] } }, /given twice/],
    [{ addGenerationPrompt: true, continueFinalMessage: true }, /both set/],
    [{ templateLimits: { step: 1 } }, /steps/],
    [{ templateLimits: { steps: 0 } }, /templateLimits.steps/],
    [{ templateLimits: { steps: 3 } }, /raise templateLimits.steps/],
    [{ chatTemplate: "{{ raise_exception('no dogs') }}" }, /refuses these messages: no dogs/],
    [{ chatTemplate: '{% if %}' }, /the chat template failed/],
  ])('%o', (options, message) => {
    expect(call(hi, options)).toThrow(ConfigError);
    expect(call(hi, options)).toThrow(message);
  });

  it('a message that holds itself', () => {
    const message: Record<string, unknown> = { role: 'user', content: 'x' };
    message.self = message;
    expect(call([message])).toThrow(ConfigError);
  });
});

describe('prompts have the begin token once', () => {
  const tokenizer = make({ chat_template: template });

  it.each<[string, boolean, number[]]>([
    ['ab', true, [0, 2, 3]],
    ['<s>ab', true, [0, 2, 3]],
    ['<s><s>ab', true, [0, 0, 2, 3]],
    ['ab', false, [2, 3]],
    ['<s>ab', false, [0, 2, 3]],
    ['<s>', true, [0]],
    ['', true, [0]],
  ])('%s, special tokens %s', (text, special, ids) => expect(encodePrompt(tokenizer, text, special)).toEqual(ids));

  it('messages are as the template writes them', () => {
    const messages = [{ role: 'user', content: 'ab' }];
    expect(messageIds(tokenizer, { messages })).toEqual([[0, 12, 2, 3, 13, 2]]);
    expect(messageIds(tokenizer, { messages, chatTemplate: 'ab{##}' })).toEqual([[2, 3]]);
    expect(() => messageIds(tokenizer, { messages: 'x' })).toThrow(/\[generate\] messages must be a list/);
  });
});
