// What transformers 5 knows of its tokenizer classes: the special tokens that each takes when no file names them, and
// the kinds of models that each is for.
import type { Json } from './section.js';

type Defaults = Readonly<Record<string, string | null>>;

export interface TokenizerClass {
  readonly defaults?: Defaults;
  readonly paddingSide?: 'left';
  /** `model_type`s of config.json, with spaces between. */
  readonly types?: string;
}

const roberta: Defaults = {
  bos_token: '<s>',
  eos_token: '</s>',
  unk_token: '<unk>',
  sep_token: '</s>',
  pad_token: '<pad>',
  cls_token: '<s>',
  mask_token: '<mask>',
};
const bert: Defaults = {
  unk_token: '[UNK]',
  sep_token: '[SEP]',
  pad_token: '[PAD]',
  cls_token: '[CLS]',
  mask_token: '[MASK]',
};
const albert: Defaults = {
  bos_token: '[CLS]',
  eos_token: '[SEP]',
  unk_token: '<unk>',
  sep_token: '[SEP]',
  pad_token: '<pad>',
  cls_token: '[CLS]',
  mask_token: '[MASK]',
};
const t5: Defaults = { eos_token: '</s>', unk_token: '<unk>', pad_token: '<pad>' };
const qwen2: Defaults = {
  bos_token: null,
  eos_token: '<|endoftext|>',
  unk_token: '<|endoftext|>',
  pad_token: '<|endoftext|>',
};
const gemma: Defaults = {
  bos_token: '<bos>',
  eos_token: '<eos>',
  unk_token: '<unk>',
  pad_token: '<pad>',
  mask_token: '<mask>',
};
const deberta: Defaults = {
  bos_token: '[CLS]',
  eos_token: '[SEP]',
  unk_token: '[UNK]',
  sep_token: '[SEP]',
  pad_token: '[PAD]',
  cls_token: '[CLS]',
  mask_token: '[MASK]',
};

const gpt2: Defaults = {
  bos_token: '<|endoftext|>',
  eos_token: '<|endoftext|>',
  unk_token: '<|endoftext|>',
  pad_token: null,
};

const classes: Readonly<Record<string, TokenizerClass>> = {
  AlbertTokenizer: { defaults: albert, types: 'albert yoso' },
  BartTokenizer: { defaults: roberta, types: 'florence2' },
  BarthezTokenizer: { defaults: roberta, types: 'barthez' },
  BertTokenizer: {
    defaults: bert,
    types:
      'align bark bert blip bros chinese_clip convbert distilbert electra ernie flava git grounding-dino layoutlm megatron-bert mm-grounding-dino nezha nomic_bert qdqbert realm retribert squeezebert tvp vilt visual_bert',
  },
  BigBirdTokenizer: {
    defaults: {
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      sep_token: '[SEP]',
      pad_token: '<pad>',
      cls_token: '[CLS]',
      mask_token: '[MASK]',
    },
    types: 'big_bird',
  },
  BlenderbotTokenizer: { defaults: roberta, types: 'blenderbot' },
  CLIPTokenizer: {
    defaults: {
      bos_token: '<|startoftext|>',
      eos_token: '<|endoftext|>',
      unk_token: '<|endoftext|>',
      pad_token: '<|endoftext|>',
    },
    types: 'aimv2 clip clipseg groupvit omdet-turbo oneformer owlv2 owlvit sam3 sam3_video xclip',
  },
  CamembertTokenizer: { defaults: roberta, types: 'camembert' },
  CodeLlamaTokenizer: {
    defaults: {
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      prefix_token: '\u2581<PRE>',
      middle_token: '\u2581<MID>',
      suffix_token: '\u2581<SUF>',
      eot_token: '\u2581<EOT>',
      fill_token: '<FILL_ME>',
    },
    paddingSide: 'left',
    types: 'code_llama',
  },
  CohereTokenizer: {
    defaults: {
      bos_token: '<BOS_TOKEN>',
      eos_token: '<|END_OF_TURN_TOKEN|>',
      unk_token: '<UNK>',
      sep_token: '<SEP>',
      pad_token: '<PAD>',
      cls_token: '<CLS>',
      mask_token: '<MASK_TOKEN>',
    },
    paddingSide: 'left',
    types: 'aya_vision cohere cohere2',
  },
  DPRQuestionEncoderTokenizer: { types: 'dpr' },
  DebertaTokenizer: { defaults: deberta, types: 'deberta' },
  DebertaV2Tokenizer: { defaults: deberta, types: 'deberta-v2' },
  EsmcTokenizer: {
    defaults: {
      bos_token: null,
      eos_token: '<eos>',
      unk_token: '<unk>',
      pad_token: '<pad>',
      cls_token: '<cls>',
      mask_token: '<mask>',
    },
    types: 'esmc esmfold2',
  },
  FNetTokenizer: { defaults: albert, types: 'fnet' },
  FunnelTokenizer: {
    defaults: {
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      sep_token: '<sep>',
      pad_token: '<pad>',
      cls_token: '<cls>',
      mask_token: '<mask>',
    },
    types: 'funnel',
  },
  GPT2Tokenizer: {
    defaults: gpt2,
    types: 'blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj instructblip instructblipvideo jais2 opt phi starcoder2',
  },
  GPTNeoXTokenizer: {
    defaults: {
      bos_token: '<|endoftext|>',
      eos_token: '<|endoftext|>',
      unk_token: '<|endoftext|>',
      pad_token: '<|padding|>',
    },
    types: 'falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm',
  },
  GemmaTokenizer: {
    defaults: gemma,
    paddingSide: 'left',
    types:
      'diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma shieldgemma2 t5gemma zaya',
  },
  HerbertTokenizer: {
    defaults: { unk_token: '<unk>', sep_token: '</s>', pad_token: '<pad>', cls_token: '<s>', mask_token: '<mask>' },
    types: 'herbert',
  },
  LEDTokenizer: { defaults: roberta, types: 'led' },
  LasrTokenizer: { defaults: t5, types: 'lasr_ctc lasr_encoder' },
  LayoutLMv2Tokenizer: { defaults: bert, types: 'layoutlmv2' },
  LayoutLMv3Tokenizer: { defaults: roberta, types: 'layoutlmv3' },
  LayoutXLMTokenizer: { defaults: roberta, types: 'layoutxlm' },
  LlamaTokenizer: {
    defaults: { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' },
    paddingSide: 'left',
    types: 'idefics idefics2',
  },
  LukeTokenizer: { defaults: roberta, types: 'luke' },
  LxmertTokenizer: { defaults: bert, types: 'lxmert' },
  MBart50Tokenizer: {
    defaults: {
      eos_token: '</s>',
      unk_token: '<unk>',
      sep_token: '</s>',
      pad_token: '<pad>',
      cls_token: '<s>',
      mask_token: '<mask>',
    },
    types: 'mbart50',
  },
  MBartTokenizer: { defaults: roberta, types: 'mbart' },
  MLukeTokenizer: { defaults: roberta, types: 'mluke' },
  MPNetTokenizer: {
    defaults: {
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '[UNK]',
      sep_token: '</s>',
      pad_token: '<pad>',
      cls_token: '<s>',
      mask_token: '<mask>',
    },
    types: 'mpnet',
  },
  MarkupLMTokenizer: { defaults: roberta, types: 'markuplm' },
  MobileBertTokenizer: { defaults: bert, types: 'mobilebert' },
  MvpTokenizer: { defaults: roberta, types: 'mvp' },
  NllbTokenizer: { defaults: roberta, types: 'nllb nllb-moe' },
  NougatTokenizer: {
    defaults: { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>', pad_token: '<pad>' },
    types: 'nougat pp_formulanet',
  },
  OpenAIGPTTokenizer: { defaults: { unk_token: '<unk>' }, types: 'openai-gpt' },
  ParakeetTokenizer: {
    types: 'granite_speech5_ctc nemotron3_5_asr nemotron_asr_streaming parakeet_ctc parakeet_rnnt parakeet_tdt',
  },
  PegasusTokenizer: {
    defaults: { eos_token: '</s>', unk_token: '<unk>', pad_token: '<pad>', mask_token: '<mask_2>' },
    types: 'pegasus',
  },
  Qwen2Tokenizer: {
    defaults: qwen2,
    types:
      'audioflamingo3 colqwen2 cosmos3_omni fun_asr_nano hunyuan_vl internvl lighton_ocr ovis2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vibevoice',
  },
  Qwen3_5Tokenizer: { defaults: qwen2, types: 'qwen3_5 qwen3_5_moe qwen3_5_text qwen4_exp' },
  ReformerTokenizer: { defaults: { eos_token: '</s>', unk_token: '<unk>' }, types: 'reformer' },
  RemBertTokenizer: { defaults: albert, types: 'rembert' },
  RoFormerTokenizer: { defaults: bert, types: 'roformer' },
  RobertaTokenizer: {
    defaults: roberta,
    types: 'bart bridgetower clap data2vec-text ibert lilt longformer mega mra roberta roberta-prelayernorm',
  },
  SeamlessM4TTokenizer: {
    defaults: {
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      sep_token: '</s>',
      pad_token: '<pad>',
      cls_token: '<s>',
    },
    types: 'seamless_m4t seamless_m4t_v2',
  },
  Siglip2Tokenizer: { defaults: gemma, paddingSide: 'left', types: 'siglip2' },
  SplinterTokenizer: { defaults: bert, types: 'splinter' },
  T5Tokenizer: { defaults: t5, types: 'mt5 musicgen musicgen_melody switch_transformers t5' },
  Tipsv2Tokenizer: {
    defaults: { bos_token: null, eos_token: null, unk_token: '<unk>', pad_token: '<pad>' },
    types: 'tipsv2',
  },
  UdopTokenizer: {
    defaults: { eos_token: '</s>', unk_token: '<unk>', sep_token: '</s>', pad_token: '<pad>' },
    types: 'udop',
  },
  VideoPrismTokenizer: { defaults: t5, types: 'videoprism' },
  WhisperTokenizer: {
    defaults: { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>', unk_token: '<|endoftext|>' },
    types: 'whisper',
  },
  XGLMTokenizer: {
    defaults: {
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      sep_token: '</s>',
      pad_token: '<pad>',
      cls_token: '<s>',
    },
    types: 'xglm',
  },
  XLMRobertaTokenizer: { defaults: roberta, types: 'jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod' },
  XLNetTokenizer: {
    defaults: {
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      sep_token: '<sep>',
      pad_token: '<pad>',
      cls_token: '<cls>',
      mask_token: '<mask>',
    },
    paddingSide: 'left',
    types: 'xlnet',
  },
  CodeGenTokenizer: { defaults: gpt2 },
  DistilBertTokenizer: { defaults: bert },
  ElectraTokenizer: { defaults: bert },
  ConvBertTokenizer: { defaults: bert },
  LayoutLMTokenizer: { defaults: bert },
  RetriBertTokenizer: { defaults: bert },
  SqueezeBertTokenizer: { defaults: bert },
  LongformerTokenizer: { defaults: roberta },
};

/** Kinds of models whose repositories name a class that is not theirs. */
const misnamed = new Set(
  'arctic camembertv2-base chameleon chatlm cohere_asr deepseek_ocr deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 deepseek_vl deepseek_vl_hybrid deepseek_vl_v2 ernie4_5 ernie4_5_moe fuyu h2ovl_chat hyperclovax hyperclovax_vlm internlm2 jamba janus llava llava_next minicpm3 minicpmv minimax_m2 modernbert molmo molmo2 nemotron nvfp4 opencua openvla paddleocr_vl phi3 phi3_v phimoe qwen2 smolvlm step3_vl step3p5 vipllava vision-encoder-decoder'.split(
    ' ',
  ),
);

const classOfType: ReadonlyMap<string, string> = new Map(
  Object.entries(classes).flatMap(([name, { types = '' }]) =>
    types
      .split(' ')
      .filter((type) => type !== '')
      .map((type) => [type, name] as const),
  ),
);

/** The class that takes everything from tokenizer.json. */
export const genericClass = 'TokenizersBackend';

const generic = new Set([genericClass, 'PreTrainedTokenizerFast', 'PythonBackend', 'PreTrainedTokenizer']);

/**
 * The Python class of a tokenizer, without `Fast`: what tokenizer_config.json or config.json names, or what the kind of
 * model has. {@link genericClass} for those that transformers has no class for.
 */
export function tokenizerClassOf(config: Json, modelConfig: Json): string {
  const nameOf = (value: unknown): string | undefined =>
    typeof value === 'string' && value !== ''
      ? generic.has(value)
        ? genericClass
        : value.replace(/Fast$/, '')
      : undefined;
  const named = nameOf(config.tokenizer_class) ?? nameOf(modelConfig.tokenizer_class);
  const type = typeof modelConfig.model_type === 'string' ? modelConfig.model_type : '';
  const own = classOfType.get(type);
  if (named === undefined || (own !== undefined && misnamed.has(type))) return own ?? named ?? genericClass;
  return misnamed.has(type) ? genericClass : named;
}

/** What is known of a class; nothing for others. */
export const classDefaults = (name: string): TokenizerClass => (Object.hasOwn(classes, name) ? classes[name] : {});
